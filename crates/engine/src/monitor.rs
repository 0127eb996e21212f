//! The monitor: looks at regular intervals how short memory is, and has it given back.
//!
//! What is done follows from the level alone (`orders`):
//!
//! | level | full budget (inside) | no room around (outside) |
//! |---|---|---|
//! | elevated | idle slabs and free pages go back | and cached prefixes |
//! | high | the same | and keys and values are moved together and limited, idle models unloaded |
//! | critical | the same | and sequences made to wait; nothing new is taken on until it has fallen |
//!
//! A full budget is no emergency: nothing passes it, and whoever needs more of it takes the ladder. See
//! [`bursar_memory::pressure`].

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use bursar_memory::pressure::{Assessment, Gauge, Judge, Level, Sample, Thresholds};
use bursar_memory::{Bytes, Ledger, Rung};
use bursar_profile::Probe;

use crate::EngineError;
use crate::handle::EngineHandle;
use crate::inbox::lock;
use crate::ladder::{Climb, Evicted, Goal, Ladder};

/// Stack of the monitor's thread.
const STACK_BYTES: usize = 256 << 10;
/// Where a climb gave nothing, the next one is so many samples later at most.
const PAUSE_MAX: u32 = 32;

/// How the monitor looks.
#[derive(Clone, Debug)]
pub struct MonitorOptions {
    /// Time between two looks.
    pub interval: Duration,
    /// From which shares on memory is short.
    pub thresholds: Thresholds,
    /// Where the kernel's files are: `/`, or a test's own tree.
    pub root: PathBuf,
}

impl Default for MonitorOptions {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(1),
            thresholds: Thresholds::default(),
            root: PathBuf::from("/"),
        }
    }
}

/// Who knows the models that are there.
pub trait Residents: Send + Sync {
    /// All that are on the engine.
    fn models(&self) -> Vec<EngineHandle>;
    /// Unloads models that nobody uses for so many bytes, as far as there are such; says which, once
    /// their memory is gone. `why` is what presses.
    fn evict_idle(&self, missing: Bytes, why: &str) -> Vec<Evicted>;
    /// Drops what has outlived its time; asked at every look, however much memory there is.
    fn tidy(&self) {}
}

/// Hears of every change of the level: the one before, and what is found now.
pub type Listener = Box<dyn FnMut(Level, &Assessment) + Send>;

/// What is to be done.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
struct Orders {
    up_to: Rung,
    bytes: Bytes,
}

/// What a level calls for.
fn orders(found: &Assessment) -> Option<Orders> {
    let (up_to, bytes) = match (found.outside, found.inside) {
        (Level::Normal, Level::Normal) => return None,
        // What stores nothing, as much as there is of it.
        (Level::Normal, _) => (Rung::TrimPools, Bytes(u64::MAX)),
        (Level::Elevated, _) => (Rung::DropPrefixes, found.missing),
        (Level::High, _) => (Rung::EvictModel, found.missing),
        (Level::Critical, _) => (Rung::Preempt, found.missing),
    };
    Some(Orders { up_to, bytes })
}

/// Keeps climbs that give nothing apart.
#[derive(Debug, Default)]
struct Pause {
    /// Samples to let pass.
    left: u32,
    /// How many after the next vain climb.
    next: u32,
}

impl Pause {
    /// Whether to climb now; a level that has risen waits for nothing.
    fn is_over(&mut self, risen: bool) -> bool {
        if risen {
            *self = Pause::default();
        }
        let over = self.left == 0;
        self.left = self.left.saturating_sub(1);
        over
    }

    fn climbed(&mut self, returned: Bytes) {
        self.next = match returned.is_zero() {
            true => (self.next * 2).clamp(1, PAUSE_MAX),
            false => 0,
        };
        self.left = self.next;
    }
}

/// A thread that looks. Dropping it ends it.
pub struct Monitor {
    ended: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Monitor {
    /// Starts to look, and shows what it finds on `gauge`.
    ///
    /// # Errors
    /// When the system refuses the thread.
    pub fn start(
        options: MonitorOptions,
        ledger: &Ledger,
        ladder: Ladder,
        residents: Arc<dyn Residents>,
        gauge: Gauge,
        listener: Listener,
    ) -> Result<Monitor, EngineError> {
        let ended = Arc::new((Mutex::new(false), Condvar::new()));
        let end = Arc::clone(&ended);
        let mut watch = Watch {
            probe: Probe::new(&options.root),
            judge: Judge::new(options.thresholds),
            ledger: ledger.clone(),
            ladder,
            residents,
            gauge,
            listener,
            pause: Pause::default(),
        };
        let thread = std::thread::Builder::new()
            .name("monitor".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                let (ended, bell) = &*end;
                let mut state = lock(ended);
                while !*state {
                    drop(state);
                    watch.look();
                    state = lock(ended);
                    if !*state {
                        let waited = bell.wait_timeout(state, options.interval);
                        state = match waited {
                            Ok((state, _)) => state,
                            Err(poisoned) => poisoned.into_inner().0,
                        };
                    }
                }
            })
            .map_err(EngineError::Thread)?;
        Ok(Monitor {
            ended,
            thread: Some(thread),
        })
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let (ended, bell) = &*self.ended;
        *lock(ended) = true;
        bell.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported where it happened.
            let _ = thread.join();
        }
    }
}

/// What the thread has.
struct Watch {
    probe: Probe,
    judge: Judge,
    ledger: Ledger,
    ladder: Ladder,
    residents: Arc<dyn Residents>,
    gauge: Gauge,
    listener: Listener,
    pause: Pause,
}

impl Watch {
    fn look(&mut self) {
        self.residents.tidy();
        let found = self.judge.assess(&Sample::take(&self.ledger, &self.probe));
        let before = self.gauge.set(found.clone());
        if before.level() != found.level() || before.outside != found.outside {
            (self.listener)(before.level(), &found);
        }
        let risen = found.outside > before.outside || found.inside > before.inside;
        let Some(Orders { up_to, bytes }) = orders(&found) else {
            return;
        };
        if !self.pause.is_over(risen) {
            return;
        }
        let reason = match found.cause.is_empty() {
            true => "the budget is nearly full",
            false => &found.cause,
        };
        let climb = Climb {
            bytes,
            goal: Goal::System,
            up_to,
            reason,
        };
        let models = self.residents.models();
        let residents = &self.residents;
        let mut evict = |missing: Bytes| residents.evict_idle(missing, reason);
        let returned = self.ladder.climb(&climb, models, &mut evict);
        self.pause.climbed(returned);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use bursar_memory::ReclaimBooks;

    use super::*;
    use crate::host::Engine;
    use crate::turns::TurnWeights;

    #[test]
    fn a_level_says_how_far_to_go() {
        let found = |inside, outside| Assessment {
            inside,
            outside,
            missing: Bytes(9),
            ..Assessment::default()
        };
        let up_to = |inside, outside| orders(&found(inside, outside)).map(|orders| orders.up_to);
        assert_eq!(up_to(Level::Normal, Level::Normal), None);
        for inside in [Level::Elevated, Level::High, Level::Critical] {
            assert_eq!(up_to(inside, Level::Normal), Some(Rung::TrimPools));
            assert_eq!(up_to(inside, Level::Elevated), Some(Rung::DropPrefixes));
            assert_eq!(up_to(inside, Level::High), Some(Rung::EvictModel));
            assert_eq!(up_to(inside, Level::Critical), Some(Rung::Preempt));
        }
    }

    #[test]
    fn vain_climbs_become_rare_until_the_level_rises() {
        let mut pause = Pause::default();
        let mut climbs = Vec::new();
        for sample in 0..200 {
            if pause.is_over(sample == 150) {
                climbs.push(sample);
                pause.climbed(Bytes::ZERO);
            }
        }
        assert_eq!(climbs[..5], [0, 2, 5, 10, 19]);
        assert!(climbs.contains(&150) && climbs.contains(&152));
        assert!(climbs.windows(2).all(|pair| pair[1] - pair[0] <= 33));
        pause.climbed(Bytes(1));
        assert!(pause.is_over(false));
    }

    struct Nobody;

    impl Residents for Nobody {
        fn models(&self) -> Vec<EngineHandle> {
            Vec::new()
        }

        fn evict_idle(&self, _: Bytes, _: &str) -> Vec<Evicted> {
            Vec::new()
        }
    }

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        let folder = path.parent().expect("a folder");
        fs::create_dir_all(folder).expect("a folder");
        fs::write(path, text).expect("a file");
    }

    /// A made-up system whose cgroup fills and empties again.
    #[test]
    fn what_is_found_is_shown_and_told() {
        let name = format!("bursar-monitor-{}", std::process::id());
        let root = std::env::temp_dir().join(name);
        write(&root, "proc/self/status", "VmRSS: 1024 kB\n");
        write(&root, "proc/self/cgroup", "0::/app\n");
        let mount = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        write(&root, "proc/self/mountinfo", mount);
        write(&root, "sys/fs/cgroup/app/memory.max", "1000000000\n");
        let hold = |bytes: u64| {
            let text = format!("{bytes}\n");
            write(&root, "sys/fs/cgroup/app/memory.current", &text);
        };
        hold(100_000_000);
        let ledger = Ledger::new(Bytes(800_000_000));
        let engine = Engine::start(&ledger, TurnWeights::default()).expect("a thread");
        let books = ReclaimBooks::new();
        let ladder = Ladder::new(&ledger, &engine.controller(), &books);
        let gauge = Gauge::new();
        let (tell, told) = std::sync::mpsc::channel();
        let options = MonitorOptions {
            interval: Duration::from_millis(1),
            root: root.clone(),
            ..MonitorOptions::default()
        };
        let monitor = Monitor::start(
            options,
            &ledger,
            ladder,
            Arc::new(Nobody),
            gauge.clone(),
            Box::new(move |before, found| {
                let _ = tell.send((before, found.outside, found.cause.clone()));
            }),
        );
        let monitor = monitor.expect("a thread");
        hold(970_000_000);
        let (before, outside, cause) = told.recv().expect("it is told");
        assert_eq!((before, outside), (Level::Normal, Level::Critical));
        assert!(cause.contains("cgroup /app"), "{cause}");
        assert!(gauge.refuses());
        hold(100_000_000);
        // A file that is being written may be found empty, which is no pressure either.
        let (_, outside, _) = told.recv().expect("it is told");
        assert_eq!(outside, Level::Normal);
        assert!(!gauge.refuses());
        drop(monitor);
        let _ = fs::remove_dir_all(root);
    }
}
