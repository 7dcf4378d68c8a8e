//! Tests of the growth test: simulated series of both kinds.

use proptest::prelude::*;

use super::*;

const MIB: f64 = 1024.0 * 1024.0;
const MINUTE: f64 = 60.0;
const HOUR: f64 = 3600.0;

fn judge() -> Judge {
    Judge::of_process(4.0 * MIB / HOUR, Duration::from_secs(30))
}

/// Noise between -1 and 1, the same in every run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f64 {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}

/// Feeds a series, one value in 5 s; gives the time of the first judgement
/// that it grows, and the last judgement.
fn feed(
    seconds: f64,
    seed: u64,
    mut bytes: impl FnMut(f64, &mut Noise) -> f64,
) -> (Option<f64>, Judgement) {
    let mut noise = Noise(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let (mut history, mut found, mut last) = (History::default(), None, Judgement::default());
    let mut time = 0.0;
    while time <= seconds {
        history.push(time, bytes(time, &mut noise).max(0.0) as u64);
        last = judge().judge(&history);
        if last.trend == Trend::Growing {
            found.get_or_insert(time);
        }
        time += 5.0;
    }
    (found, last)
}

/// Check that leaks of many kinds are found, and stay found.
#[test]
fn leaks_are_found() {
    type Series = Box<dyn FnMut(f64, &mut Noise) -> f64>;
    let leaks: Vec<(&str, f64, f64, Series)> = vec![
        // name, found within, watched for, series
        ("steady", 150.0, HOUR, Box::new(|t, _| 50.0 * MIB + t / MINUTE * MIB)),
        (
            "in noise",
            150.0,
            HOUR,
            Box::new(|t, n| 50.0 * MIB + t / MINUTE * MIB + 0.2 * MIB * n.next()),
        ),
        ("in lumps of 4 MiB", 1500.0, HOUR, {
            Box::new(|t, _| 50.0 * MIB + (t / MINUTE / 4.0).floor() * 4.0 * MIB)
        }),
        ("fast", 150.0, HOUR, Box::new(|t, n| t * MIB + MIB * n.next())),
        ("slow in a big heap", 2.0 * HOUR, 8.0 * HOUR, {
            Box::new(|t, n| 8192.0 * MIB + t / HOUR * 12.0 * MIB + 0.5 * MIB * n.next())
        }),
        ("under a collector", 2.0 * HOUR, 6.0 * HOUR, {
            Box::new(|t, _| 100.0 * MIB + t / MINUTE * MIB + (t % 240.0) / 240.0 * 60.0 * MIB)
        }),
        ("under a daily wave", 4.0 * HOUR, 60.0 * HOUR, {
            Box::new(|t, n| {
                let wave = (t / 24.0 / HOUR * std::f64::consts::TAU).sin() * 20.0 * MIB;
                200.0 * MIB + wave + t / HOUR * 20.0 * MIB + 0.2 * MIB * n.next()
            })
        }),
        ("after a quiet hour", HOUR + 360.0, 2.0 * HOUR, {
            Box::new(|t, n| 50.0 * MIB + (t - HOUR).max(0.0) / MINUTE * MIB + 0.05 * MIB * n.next())
        }),
        ("after a warm-up", 1200.0, 2.0 * HOUR, {
            Box::new(|t, n| {
                let warm = 100.0 * MIB * (1.0 - (-t / 60.0).exp());
                warm + t / MINUTE * MIB + 0.1 * MIB * n.next()
            })
        }),
        ("with every tenth minute off", 600.0, 2.0 * HOUR, {
            let mut leaked = 0.0;
            Box::new(move |t, n| {
                if (t / MINUTE) as u64 % 10 != 9 {
                    leaked += 5.0 / MINUTE * MIB;
                }
                30.0 * MIB + leaked + 0.05 * MIB * n.next()
            })
        }),
        ("faster and faster", 400.0, HOUR, {
            Box::new(|t, n| 30.0 * MIB + (t / MINUTE).powi(2) * 0.2 * MIB + 0.05 * MIB * n.next())
        }),
        ("beside bursts", 600.0, HOUR, {
            Box::new(|t, n| {
                let burst = if n.next() > 0.9 { 3.0 * MIB } else { 0.0 };
                40.0 * MIB + t / MINUTE * MIB + burst
            })
        }),
    ];
    assert!(leaks.len() >= 10);
    let mut wrong = Vec::new();
    for (name, within, seconds, series) in leaks {
        let (found, last) = feed(seconds, 7, series);
        if found.is_none_or(|at| at > within) || last.trend != Trend::Growing {
            wrong.push(format!("{name}: found at {found:?}, last {last:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Check that what is honest is not called growing, at the latest when it has
/// shown that it is (warm-ups end, waves come back).
#[test]
fn honest_series_are_not_growing() {
    type Series = Box<dyn FnMut(f64, &mut Noise) -> f64>;
    let honest: Vec<(&str, f64, f64, Series)> = vec![
        // name, never called growing after, watched for, series
        ("flat", 0.0, 6.0 * HOUR, Box::new(|_, _| 50.0 * MIB)),
        ("noise", 0.0, 6.0 * HOUR, Box::new(|_, n| 50.0 * MIB + 2.0 * MIB * n.next())),
        ("large noise", 0.0, 6.0 * HOUR, Box::new(|_, n| 500.0 * MIB + 100.0 * MIB * n.next())),
        ("a collector", 0.0, 6.0 * HOUR, Box::new(|t, _| 100.0 * MIB + t % 45.0 * MIB)),
        ("a slow collector", 1200.0, 6.0 * HOUR, Box::new(|t, _| 100.0 * MIB + t % 600.0 * MIB)),
        ("a warm-up", 0.0, 2.0 * HOUR, {
            Box::new(|t, n| 100.0 * MIB * (1.0 - (-t / 40.0).exp()) + 0.05 * MIB * n.next())
        }),
        ("a slow warm-up", 1800.0, 4.0 * HOUR, {
            Box::new(|t, n| 200.0 * MIB * (1.0 - (-t / 300.0).exp()) + 0.05 * MIB * n.next())
        }),
        ("a cache that fills", 1500.0, 4.0 * HOUR, {
            Box::new(|t, n| 20.0 * MIB + (t * 0.2).min(128.0) * MIB + 0.1 * MIB * n.next())
        }),
        ("a daily wave", 20.0 * HOUR, 72.0 * HOUR, {
            Box::new(|t, n| {
                let wave = (t / 24.0 / HOUR * std::f64::consts::TAU).sin() * 100.0 * MIB;
                300.0 * MIB + wave + 0.5 * MIB * n.next()
            })
        }),
        ("a step", 0.0, 2.0 * HOUR, {
            Box::new(|t, n| if t < 600.0 { 50.0 } else { 150.0 } * MIB + 0.1 * MIB * n.next())
        }),
        ("two steps", 0.0, 2.0 * HOUR, {
            Box::new(|t, _| {
                (50.0 + f64::from(u8::from(t > 900.0)) * 9.0 + f64::from(u8::from(t > 960.0)) * 9.0)
                    * MIB
            })
        }),
        ("one load", 0.0, 2.0 * HOUR, {
            Box::new(|t, n| {
                let load = if (1000.0..1300.0).contains(&t) { 80.0 } else { 0.0 };
                50.0 * MIB + load * MIB + 0.1 * MIB * n.next()
            })
        }),
        ("an hourly job", 0.0, 8.0 * HOUR, {
            Box::new(|t, n| {
                50.0 * MIB + if t % HOUR < 90.0 { 60.0 * MIB } else { 0.0 } + 0.1 * MIB * n.next()
            })
        }),
        ("shrinking", 0.0, 2.0 * HOUR, {
            Box::new(|t, n| (500.0 - t / MINUTE) * MIB + 0.1 * MIB * n.next())
        }),
        ("too slow to matter", 0.0, 12.0 * HOUR, {
            Box::new(|t, n| 500.0 * MIB + t / HOUR * MIB + 0.05 * MIB * n.next())
        }),
    ];
    assert!(honest.len() >= 10);
    let mut wrong = Vec::new();
    for (name, after, seconds, mut series) in honest {
        let mut noise = Noise(11);
        let mut history = History::default();
        let mut time = 0.0;
        let mut called = Vec::new();
        while time <= seconds {
            history.push(time, series(time, &mut noise).max(0.0) as u64);
            let judgement = judge().judge(&history);
            if judgement.trend == Trend::Growing && time > after {
                called.push((time, judgement));
            }
            time += 5.0;
        }
        if let Some(first) = called.first() {
            wrong.push(format!("{name}: {} times, first {first:?}", called.len()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

proptest! {
    /// Check that a leak of 1 MiB a minute is found within three minutes of
    /// the process's start (30 s of which are not looked at), whatever the
    /// noise of up to 150 KiB and the size of the heap.
    #[test]
    fn one_mebibyte_a_minute(seed in 1u64.., base in 1.0f64..20_000.0, noise in 0.0f64..0.15) {
        let series = |t: f64, n: &mut Noise| (base + t / MINUTE + noise * n.next()) * MIB;
        let (found, _) = feed(150.0, seed, series);
        prop_assert!(found.is_some());
    }

    /// Check that where the series lies in time does not matter, and that a
    /// mirrored leak is none.
    #[test]
    fn shifted_and_mirrored(seed in 1u64.., start in 0.0f64..1e6) {
        let mut noise = Noise(seed);
        let (mut here, mut there, mut down) =
            (History::default(), History::default(), History::default());
        for step in 0..60 {
            let time = f64::from(step) * 5.0;
            let bytes = time / MINUTE * MIB + 0.1 * MIB * noise.next().abs();
            here.push(time, (1e9 + bytes) as u64);
            there.push(start + time, (1e9 + bytes) as u64);
            down.push(time, (1e9 - bytes) as u64);
        }
        let judge = judge();
        prop_assert_eq!(judge.judge(&here).trend, Trend::Growing);
        prop_assert_eq!(judge.judge(&there).trend, Trend::Growing);
        prop_assert_ne!(judge.judge(&down).trend, Trend::Growing);
    }

    /// Check that nothing makes it panic or give what is no number.
    #[test]
    fn anything(points in prop::collection::vec((0.0f64..1e7, any::<u64>()), 0..300)) {
        let mut history = History::default();
        for (time, bytes) in points {
            history.push(time, bytes);
            let judgement = judge().judge(&history);
            prop_assert!(judgement.slope.is_finite() && judgement.z.is_finite());
        }
    }
}

/// Check that noise around a constant is called growth in one hour of a hundred
/// at most. Never would be more than a test of significance can promise: it is
/// asked again every few seconds, at several resolutions. Such a process is
/// traced for a while, and nothing is reported of it.
#[test]
fn noise_is_seldom_growth() {
    const HOURS: u64 = 300;
    let mut wrong = Vec::new();
    for seed in 1..=HOURS {
        let share = seed as f64 / HOURS as f64;
        let (base, noise) = (50.0 + 5000.0 * share * share, 50.0 * (1.0 - share));
        let (found, _) = feed(HOUR, seed, |_, n| (base + noise * n.next()) * MIB);
        wrong.extend(found.map(|time| format!("{base:.0} MiB +- {noise:.0} at {time} s")));
    }
    assert!(wrong.len() as u64 <= HOURS / 100, "{wrong:#?}");
}

/// Check Mann-Kendall's Z and Theil-Sen's slope against values worked out by
/// hand: 5 rising points: S = 10, variance 16.67, Z = 9 / 4.08.
#[test]
fn statistics() {
    let point = |time, bytes| Sample { time, bytes };
    let line: Vec<_> = (0..5).map(|i| point(f64::from(i), 10 + 3 * i as u64)).collect();
    let (slope, z) = trend(&line);
    assert_eq!(slope, 3.0);
    assert!((z - 9.0 / (50.0f64 / 3.0).sqrt()).abs() < 1e-9, "{z}");
    // One outlier does not change the slope.
    let mut bent = line.clone();
    bent[2].bytes = 1_000_000;
    assert!((trend(&bent).0 - 3.0).abs() < 1e-9);
    let flat: Vec<_> = (0..5).map(|i| point(f64::from(i), 7)).collect();
    assert_eq!(trend(&flat), (0.0, 0.0));
    assert_eq!(drawdown(&[point(0.0, 5), point(1.0, 9), point(2.0, 2), point(3.0, 8)]), 7);
}
