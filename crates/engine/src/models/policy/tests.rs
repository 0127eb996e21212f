//! The policy, one decision at a time.

use super::*;

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const RULES: Rules = Rules {
    min_residency: seconds(5),
    eviction: Eviction::Cheapest,
};

/// A model that is there, of `own` bytes, and has been idle for a minute.
fn there(own: u64) -> ModelView {
    ModelView {
        presence: Presence::Open,
        footprint: Some(Footprint {
            own: Bytes(own),
            arena: Bytes(0),
            loading: Bytes(0),
        }),
        spare: Bytes(0),
        reload: seconds(own),
        idle: seconds(60),
        resident: seconds(60),
        leases: 0,
        pinned: false,
        keep_alive: None,
        waiting: None,
        unload: false,
    }
}

/// A model that is not, and that somebody has waited for.
fn wanted(own: u64) -> ModelView {
    ModelView {
        presence: Presence::Absent,
        waiting: Some(seconds(1)),
        ..there(own)
    }
}

fn ask(models: &[ModelView], free: u64) -> Decision {
    let held = models.iter().filter(|m| m.presence != Presence::Absent);
    let held: u64 = held.map(|m| m.footprint.unwrap().own.get()).sum();
    let room = Room {
        free: Bytes(free),
        at_best: Bytes(free + held),
    };
    decide(models, room, &RULES)
}

#[test]
fn the_cheapest_set_goes_that_frees_enough() {
    // One of 6 costs less than 4 and 3 together; of 9 more than is needed.
    let models = [there(4), there(3), there(6), there(9), wanted(6)];
    assert_eq!(ask(&models, 0), Decision::Unload(2, Reason::Room(4)));
    // One that has rested for long costs less.
    let rested = ModelView {
        idle: seconds(600),
        ..there(9)
    };
    let models = [there(4), there(3), there(6), rested, wanted(6)];
    assert_eq!(ask(&models, 0), Decision::Unload(3, Reason::Room(4)));
    // Who was used last stays, if that is the rule.
    let lru = Rules {
        eviction: Eviction::Lru,
        ..RULES
    };
    let room = Room {
        free: Bytes(0),
        at_best: Bytes(50),
    };
    assert_eq!(
        decide(&models, room, &lru),
        Decision::Unload(3, Reason::Room(4))
    );
    assert_eq!(ask(&[there(4), wanted(6)], 6), Decision::Load(1));
}

#[test]
fn nobody_goes_who_is_used_pinned_or_new() {
    let busy = ModelView {
        leases: 1,
        ..there(5)
    };
    let pinned = ModelView {
        pinned: true,
        ..there(5)
    };
    let new = ModelView {
        resident: seconds(2),
        ..there(5)
    };
    // A busy one is closed, and goes when it is not any more.
    assert_eq!(ask(&[busy, wanted(5)], 0), Decision::Close(0));
    let closing = ModelView {
        presence: Presence::Closing,
        ..busy
    };
    assert_eq!(ask(&[closing, wanted(5)], 0), Decision::Wait(None));
    let done = ModelView {
        leases: 0,
        ..closing
    };
    let gone = Decision::Unload(0, Reason::Room(1));
    assert_eq!(ask(&[done, wanted(5)], 0), gone);
    // Nobody waits any more: it stays.
    assert_eq!(ask(&[closing, there(5)], 0), Decision::Open(0));

    let blocked = Hopeless::Blocked {
        need: Bytes(5),
        most: Bytes(1),
    };
    assert_eq!(
        ask(&[pinned, wanted(5)], 1),
        Decision::Refuse(1, blocked),
        "nothing but a pinned model is in the way"
    );
    let wait = Decision::Wait(Some(seconds(3)));
    assert_eq!(ask(&[new, wanted(5)], 0), wait);
    // A while is better waited for than a busy model closed.
    assert_eq!(ask(&[busy, new, wanted(5)], 0), wait);
    let too_large = Hopeless::TooLarge {
        need: Bytes(12),
        most: Bytes(11),
    };
    assert_eq!(
        ask(&[new, there(5), wanted(12)], 1),
        Decision::Refuse(2, too_large)
    );
}

#[test]
fn who_has_waited_longest_is_first_and_is_not_delayed() {
    let first = ModelView {
        waiting: Some(seconds(9)),
        ..wanted(8)
    };
    let busy = ModelView {
        presence: Presence::Closing,
        leases: 1,
        ..there(6)
    };
    // Of 4 that are free, the first needs 2: one of 2 is let past, one of 3 is not.
    assert_eq!(ask(&[busy, wanted(2), first], 4), Decision::Load(1));
    assert_eq!(ask(&[busy, wanted(3), first], 4), Decision::Wait(None));
    assert_eq!(ask(&[there(6), wanted(2), first], 8), Decision::Load(2));
}

#[test]
fn what_is_not_used_goes_in_time_and_what_can_be_spared_goes_first() {
    let kept = |keep: u64, idle: u64| ModelView {
        keep_alive: Some(seconds(keep)),
        idle: seconds(idle),
        ..there(5)
    };
    let wait = Decision::Wait(Some(seconds(10)));
    assert_eq!(ask(&[kept(300, 290), kept(90, 10)], 0), wait);
    let idle = Decision::Unload(1, Reason::Idle);
    assert_eq!(ask(&[kept(300, 290), kept(0, 0)], 0), idle);
    let busy = ModelView {
        leases: 1,
        ..kept(0, 0)
    };
    assert_eq!(ask(&[busy], 0), Decision::Wait(None));
    let pinned = ModelView {
        pinned: true,
        ..kept(0, 0)
    };
    assert_eq!(ask(&[pinned], 0), Decision::Wait(None));

    let spare = ModelView {
        spare: Bytes(3),
        ..there(8)
    };
    assert_eq!(
        ask(&[spare, wanted(5)], 2),
        Decision::Reclaim(1, Bytes(3)),
        "keys and values of others go before models"
    );
    let asked = ModelView {
        unload: true,
        pinned: true,
        ..busy
    };
    assert_eq!(ask(&[asked], 0), Decision::Close(0));
    let asked = ModelView { leases: 0, ..asked };
    assert_eq!(ask(&[asked], 0), Decision::Unload(0, Reason::Asked));
}

#[test]
fn activations_are_shared() {
    let with = |model: ModelView, arena: u64, loading: u64| ModelView {
        footprint: Some(Footprint {
            arena: Bytes(arena),
            loading: Bytes(loading),
            ..model.footprint.unwrap()
        }),
        ..model
    };
    let room = |free| Room {
        free: Bytes(free),
        at_best: Bytes(100),
    };
    let models = [with(there(5), 4, 0), with(wanted(5), 6, 0)];
    assert_eq!(decide(&models, room(7), &RULES), Decision::Load(1));
    let gone = Decision::Unload(0, Reason::Room(1));
    assert_eq!(decide(&models, room(6), &RULES), gone);
    // What is needed only while it is loaded counts as well.
    let models = [with(there(5), 4, 0), with(wanted(5), 6, 9)];
    assert_eq!(decide(&models, room(10), &RULES), gone);
    // Unknown: it is tried.
    let unknown = ModelView {
        footprint: None,
        ..wanted(5)
    };
    assert_eq!(
        decide(&[there(5), unknown], room(0), &RULES),
        Decision::Load(1)
    );
}
