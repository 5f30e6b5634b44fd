#![expect(clippy::unwrap_used, reason = "tests")]

use coord_shared::ids::Seq;
use coord_shared::level::Level;
use proptest::prelude::*;

use super::*;

/// A host with jobs, built one backup at a time; times are in hours.
#[derive(Default)]
struct Host {
    points: Vec<Point>,
    jobs: BTreeMap<&'static str, (JobId, Vec<Vec<u8>>)>,
}

impl Host {
    fn job(mut self, policy: &'static str, sources: &[&str]) -> Self {
        let sources = sources.iter().map(|source| source.as_bytes().to_vec()).collect();
        self.jobs.insert(policy, (JobId::random(), sources));
        self
    }

    fn backup(&mut self, policy: &'static str, hour: i64, level: Level, base: Option<BackupId>) -> BackupId {
        let (job, sources) = self.jobs[policy].clone();
        let id = BackupId::random();
        self.points.push(Point {
            id,
            job,
            policy: PolicySlug::new(policy).unwrap(),
            level,
            base,
            same_as: None,
            seq: Seq(i64::try_from(self.points.len()).unwrap() + 1),
            captured_at: hours(hour),
            damaged: false,
            sources,
            source_bytes: 100,
            content_bytes: 10,
            stored_bytes: 10,
        });
        id
    }

    fn full(&mut self, policy: &'static str, hour: i64) -> BackupId {
        self.backup(policy, hour, Level::Full, None)
    }

    fn differential(&mut self, policy: &'static str, hour: i64, base: BackupId) -> BackupId {
        self.backup(policy, hour, Level::Differential, Some(base))
    }

    fn change(&mut self, id: BackupId, how: impl Fn(&mut Point)) {
        self.points.iter_mut().filter(|point| point.id == id).for_each(how);
    }

    fn plan(&self, at: Option<i64>, paths: &[&str]) -> Result<Plan, PlanError> {
        self.plan_of(at, paths, None)
    }

    fn plan_of(&self, at: Option<i64>, paths: &[&str], policy: Option<&str>) -> Result<Plan, PlanError> {
        let wanted = Wanted {
            at: at.map(hours),
            paths: paths.iter().map(|path| path.as_bytes().to_vec()).collect(),
            policy: policy.map(|policy| PolicySlug::new(policy).unwrap()),
        };
        plan(&Points::new(self.points.clone()), &wanted)
    }
}

fn hours(hour: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + hour * 3600).unwrap()
}

fn archives(plan: &Plan) -> Vec<(BackupId, Option<BackupId>)> {
    plan.parts.iter().map(|part| (part.full, part.differential)).collect()
}

fn texts(paths: &[Vec<u8>]) -> Vec<String> {
    paths.iter().map(|path| shown(path)).collect()
}

#[test]
fn a_time_is_answered_by_the_newest_point_at_or_before_it() {
    let mut host = Host::default().job("web", &["etc"]);
    let full = host.full("web", 0);
    let first = host.differential("web", 24, full);
    let second = host.differential("web", 48, full);
    let next_full = host.full("web", 72);
    for (at, expected) in [
        (Some(0), (full, None)),
        (Some(23), (full, None)),
        (Some(24), (full, Some(first))),
        (Some(50), (full, Some(second))),
        (Some(72), (next_full, None)),
        (None, (next_full, None)),
    ] {
        assert_eq!(archives(&host.plan(at, &[]).unwrap()), [expected], "{at:?}");
    }
}

#[test]
fn a_time_before_the_first_point_names_the_first() {
    let mut host = Host::default().job("web", &["etc"]);
    host.full("web", 10);
    let error = host.plan(Some(9), &[]).unwrap_err();
    assert!(matches!(&error, PlanError::NothingBefore { first, .. } if *first == hours(10)), "{error}");
    assert!(error.to_string().contains("2023-11-15T08:13:20Z") && error.to_string().contains("policy web"), "{error}");
}

#[test]
fn a_host_without_backups_and_a_path_outside_every_policy_are_said() {
    let mut host = Host::default().job("web", &["etc", "srv"]);
    assert!(matches!(host.plan(None, &[]), Err(PlanError::NoBackup { policy: None })));
    host.full("web", 0);
    let error = host.plan(None, &["etc/nginx", "home/x\u{1b}"]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "/home/x\\u{1b} is outside of every policy of this host: protected /etc (web), /srv (web)"
    );
    assert!(matches!(host.plan_of(None, &[], Some("db")), Err(PlanError::NoBackup { policy: Some(_) })));
    assert!(matches!(host.plan(None, &["etcetera"]), Err(PlanError::Outside { .. })), "a name is no prefix");
    let many = vec!["etc"; MAX_PATHS + 1];
    assert!(matches!(host.plan(None, &many), Err(PlanError::TooManyPaths { .. })));
}

#[test]
fn a_damaged_point_gives_way_to_the_one_before_it_with_a_note() {
    let mut host = Host::default().job("web", &["etc"]);
    let full = host.full("web", 0);
    let first = host.differential("web", 24, full);
    let second = host.differential("web", 48, full);
    host.change(second, |point| point.damaged = true);
    let plan = host.plan(None, &[]).unwrap();
    assert_eq!(archives(&plan), [(full, Some(first))]);
    assert!(plan.notes[0].contains("stands in"), "{:?}", plan.notes);
    host.change(full, |point| point.damaged = true);
    let error = host.plan(None, &["etc/x"]).unwrap_err();
    assert!(matches!(error, PlanError::Damaged { newest, .. } if newest == hours(48)), "{error}");
}

#[test]
fn a_point_without_an_archive_reads_the_one_it_names() {
    let mut host = Host::default().job("web", &["etc"]);
    let full = host.full("web", 0);
    let first = host.differential("web", 24, full);
    let same = host.differential("web", 48, full);
    host.change(same, |point| point.same_as = Some(first));
    let plan = host.plan(None, &[]).unwrap();
    assert_eq!((plan.parts[0].backup, archives(&plan)), (same, vec![(full, Some(first))]));
}

#[test]
fn the_highest_seq_counts_even_when_the_hosts_clock_went_back() {
    let mut host = Host::default().job("web", &["etc"]);
    let full = host.full("web", 0);
    host.differential("web", 48, full);
    let later = host.differential("web", 24, full);
    assert_eq!(archives(&host.plan(None, &[]).unwrap()), [(full, Some(later))]);
    assert_eq!(archives(&host.plan(Some(30), &[]).unwrap()), [(full, Some(later))]);
}

#[test]
fn between_policies_the_newest_wins_path_by_path() {
    let mut host = Host::default().job("all", &["srv"]).job("www", &["srv/www"]);
    host.full("all", 0);
    host.full("www", 5);
    let plan = host.plan(None, &[]).unwrap();
    assert_eq!(plan.parts[0].policy.as_str(), "www");
    assert_eq!(texts(&plan.parts[0].paths), ["/srv/www"]);
    assert_eq!(texts(&plan.parts[1].paths), ["/srv"]);
    assert_eq!(texts(&plan.parts[1].except), ["/srv/www"], "the inner folder comes from the newer backup alone");
    assert!(plan.notes[0].contains("--policy all"), "{:?}", plan.notes);

    host.full("all", 9);
    let plan = host.plan(None, &[]).unwrap();
    assert_eq!(plan.parts.len(), 1, "the newer, wider one covers everything");
    assert_eq!(plan.parts[0].policy.as_str(), "all");
    let chosen = host.plan_of(None, &["srv/www/index.html"], Some("www")).unwrap();
    assert_eq!(
        (chosen.parts[0].policy.as_str(), texts(&chosen.parts[0].paths)),
        ("www", vec!["/srv/www/index.html".to_owned()])
    );
}

#[test]
fn a_whole_host_is_the_union_of_its_jobs() {
    let mut host = Host::default().job("etc", &["etc"]).job("srv", &["srv", "var/lib"]).job("new", &["opt"]);
    host.full("etc", 0);
    host.full("srv", 1);
    host.full("new", 20);
    let plan = host.plan(Some(10), &[]).unwrap();
    let given: Vec<String> = plan.parts.iter().flat_map(|part| texts(&part.paths)).collect();
    assert_eq!(given, ["/srv", "/var/lib", "/etc"]);
    assert!(plan.notes.iter().any(|note| note.contains("policy new gives nothing")), "{:?}", plan.notes);
    let below = host.plan(None, &["var", "etc/a", "etc/a/b"]).unwrap();
    let given: Vec<String> = below.parts.iter().flat_map(|part| texts(&part.paths)).collect();
    assert_eq!(given, ["/var/lib", "/etc/a"], "a folder above a source gives the source");
}

#[derive(Debug, Clone)]
struct Step {
    policy: usize,
    full: bool,
    hours: i64,
    damaged: bool,
    same: bool,
}

fn step() -> impl Strategy<Value = Step> {
    (0usize..3, any::<bool>(), -1i64..6, prop::bool::weighted(0.15), prop::bool::weighted(0.2))
        .prop_map(|(policy, full, hours, damaged, same)| Step { policy, full, hours, damaged, same })
}

fn history(steps: &[Step]) -> Host {
    let policies = ["a", "b", "c"];
    let mut host = Host::default().job("a", &["srv"]).job("b", &["srv/www", "etc"]).job("c", &["srv/www/x", "srv/y"]);
    let mut hour = 0;
    for step in steps {
        hour += step.hours;
        let policy = policies[step.policy];
        let last = |host: &Host, level: Option<Level>| {
            host.points
                .iter()
                .rev()
                .find(|p| p.policy.as_str() == policy && level.is_none_or(|l| p.level == l) && p.same_as.is_none())
                .map(|p| p.id)
        };
        let base = last(&host, Some(Level::Full));
        let id = match (step.full, base) {
            (false, Some(base)) => {
                let newest = last(&host, None);
                let id = host.differential(policy, hour, base);
                if step.same {
                    host.change(id, |point| point.same_as = newest);
                }
                id
            }
            (_, _) => host.full(policy, hour),
        };
        host.change(id, |point| point.damaged = step.damaged && point.same_as.is_none());
    }
    host
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_plan_never_reads_more_than_one_full_and_one_differential_of_it(steps in prop::collection::vec(step(), 1..25), at in 0i64..60) {
        let host = history(&steps);
        let points = Points::new(host.points.clone());
        let Ok(plan) = host.plan(Some(at), &[]) else { return Ok(()) };
        let mut jobs = BTreeSet::new();
        for part in &plan.parts {
            prop_assert!(jobs.insert(part.job), "one part for each job");
            let full = points.get(part.full).unwrap();
            prop_assert!(full.level == Level::Full && !full.damaged && full.job == part.job);
            if let Some(id) = part.differential {
                let differential = points.get(id).unwrap();
                prop_assert_eq!(differential.base, Some(part.full));
                prop_assert!(!differential.damaged && differential.job == part.job && differential.level == Level::Differential);
            }
            prop_assert!(part.captured_at <= hours(at));
        }
    }

    #[test]
    fn every_path_comes_from_the_newest_point_that_covers_it_and_from_no_other(steps in prop::collection::vec(step(), 1..25), at in 0i64..60) {
        let host = history(&steps);
        let points = Points::new(host.points.clone());
        let Ok(plan) = host.plan(Some(at), &[]) else { return Ok(()) };
        for path in ["srv", "srv/a", "srv/www", "srv/www/x/deep", "srv/www/z", "srv/y/1", "etc/passwd"] {
            let path = path.as_bytes();
            let within = |list: &[Vec<u8>]| list.iter().any(|outer| is_at_or_below(path, outer));
            let givers: Vec<&Part> = plan.parts.iter().filter(|part| within(&part.paths) && !within(&part.except)).collect();
            prop_assert!(givers.len() <= 1, "{:?} comes twice", shown(path));
            let mut best: Option<&Point> = None;
            for job in ["a", "b", "c"] {
                let mut of_job: Vec<&Point> = points.iter().filter(|p| p.policy.as_str() == job && p.captured_at <= hours(at)).collect();
                of_job.sort_by_key(|p| p.seq);
                let newest = of_job.into_iter().rev().find(|p| points.archives(p).is_ok());
                if let Some(p) = newest.filter(|p| p.sources.iter().any(|s| is_at_or_below(path, s)))
                    && best.is_none_or(|b| p.captured_at > b.captured_at)
                {
                    best = Some(p);
                }
            }
            prop_assert_eq!(givers.first().map(|part| part.backup), best.map(|p| p.id), "{:?}", shown(path));
        }
    }
}
