//! Several models inside a real memory cgroup whose limit is the budget and 5 %: models come and go, page
//! cache does not count, and nobody is killed.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::serve::Served;
use crate::support::{PROGRAM, Place};

/// A memory cgroup with a limit, removed at the end.
struct Group {
    path: PathBuf,
    events: &'static str,
}

impl Group {
    /// Makes one below that of this process, version 1 or 2.
    fn new(limit: u64) -> Result<Group, String> {
        let own = fs::read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
        let fields = |line: &str| -> Option<(String, String)> {
            let mut parts = line.splitn(3, ':').skip(1);
            Some((parts.next()?.to_owned(), parts.next()?.to_owned()))
        };
        let one = own.lines().filter_map(fields).find_map(|(kinds, path)| {
            let is_memory = kinds.split(',').any(|kind| kind == "memory");
            is_memory.then_some(path)
        });
        let (parent, most, events) = match one {
            Some(path) => {
                let root = Path::new("/sys/fs/cgroup/memory");
                let below = root.join(path.trim_start_matches('/'));
                // A container often sees its own group as the root.
                let parent = if below.exists() {
                    below
                } else {
                    root.to_owned()
                };
                (parent, "memory.limit_in_bytes", "memory.oom_control")
            }
            None => (
                PathBuf::from("/sys/fs/cgroup"),
                "memory.max",
                "memory.events",
            ),
        };
        let path = parent.join(format!("bursar-test-{}", std::process::id()));
        let told = |error: std::io::Error| format!("{}: {error}", path.display());
        fs::create_dir(&path).map_err(told)?;
        let group = Group {
            path: path.clone(),
            events,
        };
        fs::write(path.join(most), limit.to_string()).map_err(told)?;
        group.kills()?;
        Ok(group)
    }

    /// Processes killed for want of memory so far.
    fn kills(&self) -> Result<u64, String> {
        let path = self.path.join(self.events);
        let text = fs::read_to_string(&path).map_err(|error| error.to_string())?;
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        let kills = line.and_then(|count| count.parse().ok());
        kills.ok_or_else(|| format!("{} does not count kills", path.display()))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.path);
    }
}

const NAMES: [&str; 3] = ["tiny-llama", "tiny-qwen3", "tiny-bert"];
const SIZES: &str = "--context 256 --kv-memory 1MiB --batch-tokens 256";

#[test]
fn a_real_limit_kills_nobody() {
    let place = Place::new();
    let folder = place.path("models");
    fs::create_dir_all(&folder).expect("a folder");
    let (mut process, mut own) = (0, Vec::new());
    for name in NAMES {
        let file = folder.join(format!("{name}.gguf"));
        place
            .bursar(&format!("synth {name} -o {}", file.display()))
            .ok();
        let plan = place
            .bursar(&format!(
                "plan {} --memory 1GiB {SIZES} --json",
                file.display()
            ))
            .ok()
            .json();
        let parts = plan["parts"].as_array().expect("parts");
        let of = |part: &Value| part["bytes"].as_u64().expect("a number");
        let part = parts.iter().find(|part| part["name"] == "process");
        process = of(part.expect("a part"));
        own.push(parts.iter().map(of).sum::<u64>() - process);
    }
    // Either of those that write, beside the other one or not, but never all three: requests are
    // guaranteed 16 MiB, the server has more threads than a plan for one run.
    let budget = process + (20 << 20) + own[0] + own[1] - (3 << 20);
    let group = match Group::new(budget + budget / 20) {
        Ok(group) => group,
        Err(why) => {
            eprintln!("skipped: no memory cgroup can be made here: {why}");
            return;
        }
    };
    let mut command = place.command("/bin/sh");
    command.args(["-c", r#"echo $$ > "$0/cgroup.procs" && exec "$@""#]);
    command.arg(&group.path).arg(PROGRAM);
    let (memory, dir) = (budget.to_string(), folder.to_string_lossy().into_owned());
    let mut arguments = vec!["tiny-llama", "--models-dir", &dir, "--memory", &memory];
    arguments.extend(["--min-residency", "0s"]);
    arguments.extend(SIZES.split(' '));
    let served = Served::by(command, &arguments);
    std::thread::scope(|scope| {
        for client in 0..8 {
            let served = &served;
            scope.spawn(move || {
                for turn in 0..5 {
                    let name = NAMES[(client + turn) % NAMES.len()];
                    let (path, rest) = match name {
                        "tiny-bert" => ("/v1/embeddings", r#""input":["the miller","sat by"]"#),
                        _ => ("/v1/completions", r#""prompt":"the miller","max_tokens":6"#),
                    };
                    let answer = served.post(path, &format!(r#"{{"model":"{name}",{rest}}}"#));
                    let whole =
                        answer.starts_with("HTTP/1.0 200") || answer.starts_with("HTTP/1.1 200");
                    let refused = answer.contains(" 429 ") || answer.contains(" 503 ");
                    assert!(
                        whole || (refused && answer.contains("etry-after")),
                        "{answer}"
                    );
                }
            });
        }
    });
    // All at once, requests for one model are served together. One after the other, each of these has to
    // wait for its model.
    for name in ["tiny-llama", "tiny-qwen3"].repeat(3) {
        let body = format!(r#"{{"model":"{name}","prompt":"the miller","max_tokens":2}}"#);
        let answer = served.post("/v1/completions", &body);
        assert!(answer.contains("200 OK"), "{answer}");
    }
    let at = format!("--listen {}", served.address);
    let report = place.bursar(&format!("memory --json {at}")).ok().json();
    let bytes = |name: &str| report[name].as_u64().expect("a number");
    assert!(bytes("granted_peak_bytes") <= budget, "{report}");
    assert!(bytes("rss_peak_bytes") <= budget, "{report}");
    let evictions = report["model_cache"]["evictions_total"].as_u64();
    assert!(evictions >= Some(5), "{report}");
    assert_eq!(served.stop().0, Some(0));
    assert_eq!(group.kills(), Ok(0));
}
