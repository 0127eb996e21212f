//! `GET /`: a page to look at the server with. It is part of the program, asks nobody else for anything,
//! and holds no figure: what it shows it asks of `GET /memory` and its neighbours, with a key where keys
//! are set. So the page itself is open to all.

use axum::body::Body;
use axum::http::{HeaderValue, Response, header};

/// What the page may do: run and look as its own files say, ask this server, and nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self' data:; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// A file of the page: where it is, what it is.
struct File {
    path: &'static str,
    kind: &'static str,
    text: &'static str,
}

macro_rules! file {
    ($path:literal, $kind:expr, $name:literal) => {
        File {
            path: $path,
            kind: $kind,
            text: include_str!(concat!("dashboard/", $name)),
        }
    };
}

const FILES: [File; 13] = [
    file!("/", HTML, "index.html"),
    file!(
        "/dashboard/style.css",
        "text/css; charset=utf-8",
        "style.css"
    ),
    file!("/dashboard/icon.svg", "image/svg+xml", "icon.svg"),
    file!("/dashboard/main.js", SCRIPT, "main.js"),
    file!("/dashboard/format.js", SCRIPT, "format.js"),
    file!("/dashboard/kvmap.js", SCRIPT, "kvmap.js"),
    file!("/dashboard/live.js", SCRIPT, "live.js"),
    file!("/dashboard/models.js", SCRIPT, "models.js"),
    file!("/dashboard/play.js", SCRIPT, "play.js"),
    file!("/dashboard/rates.js", SCRIPT, "rates.js"),
    file!("/dashboard/timeline.js", SCRIPT, "timeline.js"),
    file!("/dashboard/treemap.js", SCRIPT, "treemap.js"),
    file!("/dashboard/whatif.js", SCRIPT, "whatif.js"),
];

/// Whether a path is the page's, which is open to all and served to the last.
pub(crate) fn is_page(path: &str) -> bool {
    path == "/" || path.starts_with("/dashboard/")
}

/// A file of the page, if there is one at that path.
pub(crate) fn answer(path: &str) -> Option<Response<Body>> {
    let file = FILES.iter().find(|file| file.path == path)?;
    let mut response = Response::new(Body::from(file.text));
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, file.kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // Another version of the program has another page.
        (header::CACHE_CONTROL, "no-cache"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_small_and_asks_nobody_else() {
        let bytes: usize = FILES.iter().map(|file| file.text.len()).sum();
        assert!(bytes < 150 << 10, "{bytes} bytes");
        for file in &FILES {
            assert!(is_page(file.path));
            // An address in a comment asks nobody; one in quotes may.
            let mut quoted = file.text.split(['"', '\'', '`', '(']);
            let elsewhere = quoted.find(|text| {
                let named = text.starts_with("http://www.w3.org/2000/svg");
                let comment = text.starts_with("// ");
                !named && (text.starts_with("http") || text.starts_with("//") && !comment)
            });
            assert_eq!(elsewhere, None, "{}", file.path);
            if file.kind == HTML {
                for banned in [" style=", " onclick=", "<script>", "<style"] {
                    assert!(!file.text.contains(banned), "{banned} in {}", file.path);
                }
            }
        }
    }

    #[test]
    fn what_files_import_is_there() {
        for file in &FILES {
            for import in file.text.split("from \"./").skip(1) {
                let name = import.split('"').next().unwrap_or_default();
                let path = format!("/dashboard/{name}");
                assert!(answer(&path).is_some(), "{path}, for {}", file.path);
            }
        }
        assert!(answer("/dashboard/none.js").is_none());
        assert!(!is_page("/dashboards"));
    }
}
