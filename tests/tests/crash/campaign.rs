//! Several processes die, at points by chance, while several builds are under way.

use std::time::{Duration, Instant};

use belljar_tests::Part;
use belljar_tests::trace::{Kill, When};

use crate::points::POINTS;
use crate::site::Site;

/// Says how long the long campaign takes, in seconds.
const SECONDS: &str = "BELLJAR_CAMPAIGN_SECONDS";
/// Says with which number it begins.
const SEED: &str = "BELLJAR_CAMPAIGN_SEED";
/// Most builds at once.
const BUILDS: usize = 6;
/// Most deaths of one round: each may cost an attempt, and a build has three.
const DEATHS: usize = 2;
/// Most often that a point is passed before the death at it.
const OCCURRENCES: usize = 4;

/// Numbers that look like chance and are the same each time (xorshift64*).
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(number).unwrap() % most
    }

    /// Deaths of different processes.
    fn deaths(&mut self, count: usize) -> Vec<(Part, Kill)> {
        let mut deaths: Vec<(Part, Kill)> = Vec::new();
        while deaths.len() < count {
            let point = &POINTS[self.below(POINTS.len())];
            if deaths.iter().any(|(part, _)| *part == point.part) {
                continue;
            }
            let kill = Kill {
                name: point.name.to_owned(),
                occurrence: 1 + self.below(OCCURRENCES),
                when: [When::Before, When::After][self.below(2)],
            };
            deaths.push((point.part, kill));
        }
        deaths
    }
}

/// One after the other, each with its own number, until `goes_on` says no.
fn campaign(seed: u64, goes_on: impl Fn(u64) -> bool) {
    let mut site = Site::traced(&Part::ALL, false);
    let (mut number, mut died) = (0, 0);
    while goes_on(number) {
        let mut chance = Chance(
            seed.wrapping_add(number)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                | 1,
        );
        let count = 1 + chance.below(DEATHS);
        let deaths = chance.deaths(count);
        let builds = 1 + chance.below(BUILDS);
        println!(
            "round {}: {builds} builds, {deaths:?}",
            seed.wrapping_add(number)
        );
        let orders = (0..builds).map(|_| site.order()).collect();
        let (_, all) = site.run(&deaths, orders);
        died += u64::from(all);
        number += 1;
    }
    println!("{number} rounds; in {died} of them all died that should");
    assert!(died > 0 && died * 4 >= number, "hardly anybody has died");
}

/// A dozen rounds, the same each time.
#[test]
fn pairs_die_while_builds_are_under_way() {
    campaign(1, |number| number < 12);
}

#[test]
#[ignore = "takes as long as it is told to: cargo xtask soak crash"]
fn for_long() {
    let read = |name: &str| std::env::var(name).ok()?.parse().ok();
    let seconds = read(SECONDS).expect("BELLJAR_CAMPAIGN_SECONDS");
    let end = Instant::now() + Duration::from_secs(seconds);
    campaign(read(SEED).unwrap_or(1000), |_| Instant::now() < end);
}
