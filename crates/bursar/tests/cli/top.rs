//! A running server on a terminal, as far as that is text.

use crate::serve::Served;
use crate::support::{Place, model};

/// B5: what the screen shows is what the server says.
#[test]
fn one_frame_is_printed_where_there_is_no_terminal() {
    let place = Place::new();
    let llama = model("llama-f16.gguf");
    let served = Served::start(&place, &[llama.as_str(), "--memory", "256MiB"]);
    let at = format!("top --listen {}", served.address);
    let ran = place.bursar(&at).ok();
    ran.says(&[
        "bursar top  http://127.0.0.1:",
        "pressure normal",
        "budget 256.0 MiB",
        "weights",
        "llama-f16",
        "loaded",
        "keys and values",
        "no request is being answered",
    ]);
    let widest = ran.stdout.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(80), "{}", ran.stdout);
    assert!(!ran.stdout.contains('\u{1b}'), "text alone");
    let size = [("COLUMNS", "120"), ("LINES", "24")];
    let arguments = ["top", "--once", "--listen", &served.address];
    let ran = place.bursar_with(&size, &arguments).ok();
    assert_eq!(ran.stdout.lines().count(), 24, "{}", ran.stdout);
    let address = served.address.clone();
    assert_eq!(served.stop().0, Some(0));
    place.bursar(&format!("top --listen {address}")).refused(
        1,
        &["cannot ask the server", "start one with `bursar serve`"],
    );
}
