//! Campaigns as their users see them: what they leave on disk, how they end, and what they share.

use cofferdam_fuzz_trials::{
    Campaign, children, contents, findings, go_away, kill, run, runner, segments,
};
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use tempfile::tempdir;

/// Ends by itself, long after every test.
const LONG: &str = "60s";

#[test]
fn same_seed_leaves_the_same_corpus_and_findings_and_another_does_not() {
    let place = tempdir().expect("a directory");
    let campaign = |name: &str, target: &str, seed: &str, execs: &str| {
        let out = place.path().join(name);
        let options = ["--seed", seed, "--execs", execs];
        let (_, ended) = Campaign::start(target, &out, &options).end();
        assert_eq!(ended.code(), Some(1), "there is something to find");
        contents(&out)
    };

    let one = campaign("one", "wanders", "7", "100000");
    let again = campaign("again", "wanders", "7", "100000");
    let other = campaign("other", "wanders", "8", "100000");
    // A driver that ends its process, life after life.
    let dies = campaign("dies", "panics-twice", "7", "40");
    let dies_again = campaign("dies again", "panics-twice", "7", "40");

    assert!(one.iter().any(|(path, _)| path.starts_with("corpus")));
    assert!(one.iter().any(|(path, _)| path.starts_with("findings")));
    assert!(one == again, "the same seed");
    assert!(one != other, "another seed");
    assert!(!dies.is_empty() && dies == dies_again, "the same deaths");
}

#[test]
fn jobs_share_what_they_find_and_each_finding_is_told_once() {
    let place = tempdir().expect("a directory");
    let options = ["--jobs", "3", "--execs", "300000"];
    let (lines, ended) = Campaign::start("wanders", place.path(), &options).end();

    let told: Vec<_> = lines
        .iter()
        .filter_map(|it| it["signature"].as_str())
        .collect();
    let once: BTreeSet<_> = told.iter().collect();
    let last = lines.iter().rfind(|it| it["jobs"] == 3).expect("a status");
    let jobs = last["per_job"].as_array().expect("jobs");
    assert_eq!(ended.code(), Some(1));
    assert_eq!(told.len(), once.len(), "{told:?}");
    assert_eq!(findings(place.path()).len(), once.len());
    assert_eq!(last["executions"], 300_000);
    for job in jobs {
        assert_eq!(job["executions"], 100_000);
    }
    // The first to find something has nobody to hear it from.
    let imported = jobs.iter().filter(|it| it["imported"].as_u64() > Some(0));
    assert!(imported.count() > 0, "{last}");
}

#[test]
fn campaign_that_is_interrupted_ends_cleanly() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let place = tempdir().expect("a directory");
        let before = segments();
        let campaign = Campaign::start("wanders", place.path(), &["--jobs", "2", "--time", LONG]);
        let found = campaign.wait_for(|it| it["signature"].is_string());
        let workers = campaign.workers();
        assert_eq!(workers.len(), 2);

        campaign.signal(signal);

        let (lines, ended) = campaign.end();
        assert_eq!(ended.code(), Some(1), "there is a finding");
        assert!(lines.iter().any(|it| it["executions"].as_u64() > Some(0)));
        assert!(go_away(&workers));
        assert!(findings(place.path()).contains(&found["signature"].as_str().expect("it").into()));
        assert!(
            !contents(place.path())
                .iter()
                .any(|(path, _)| is_unfinished(path))
        );
        assert_eq!(segments(), before);
    }
}

fn is_unfinished(path: &Path) -> bool {
    let mut parts = path.iter();
    parts.any(|part| part.to_string_lossy().starts_with('.'))
}

#[test]
fn killed_campaign_takes_its_workers_along_and_loses_no_announced_finding() {
    let before = segments();
    let mut all_told = 0;
    for round in 0_u32..12 {
        let place = tempdir().expect("a directory");
        let seed = round.to_string();
        let options = ["--jobs", "2", "--time", LONG, "--seed", &seed];
        let campaign = Campaign::start("wanders", place.path(), &options);
        // Every other round with a finding told, and more of them on their way.
        let found = round % 2 == 0;
        let first = campaign.wait_for(|it| it["signature"].is_string() || !found);
        let workers = campaign.workers();
        // Each round a little later: in the middle of anything.
        busy(u64::from(round) * 300);

        campaign.signal(libc::SIGKILL);

        assert!(go_away(&workers), "a worker outlives its campaign");
        let (mut told, _) = campaign.end();
        told.push(first);
        let told = told.iter().filter_map(|it| it["signature"].as_str());
        let told: BTreeSet<String> = told.map(str::to_owned).collect();
        let kept: BTreeSet<String> = findings(place.path()).into_iter().collect();
        assert!(told.is_subset(&kept), "{told:?} {kept:?}");
        all_told += told.len();
    }
    assert!(all_told > 0);
    assert_eq!(segments(), before);
}

/// Passes some time, in looks at the clock's smallest steps: no sleep would be as short.
fn busy(microseconds: u64) {
    let began = std::time::Instant::now();
    while began.elapsed().as_micros() < u128::from(microseconds) {
        std::hint::spin_loop();
    }
}

#[test]
fn killed_worker_is_replaced_and_loses_no_announced_finding() {
    let place = tempdir().expect("a directory");
    let campaign = Campaign::start("wanders", place.path(), &["--jobs", "2", "--time", LONG]);
    campaign.wait_for(|it| it["signature"].is_string());
    for round in 0..8 {
        let victim = campaign.workers()[round % 2];
        busy(round as u64 * 500);
        kill(victim, libc::SIGKILL);
        assert!(go_away(&[victim]));
        campaign.wait_for(|it| deaths(it) == Some(round as u64 + 1));
    }
    campaign.wait_for(|it| it["per_job"][0]["running"] == true);
    campaign.signal(libc::SIGTERM);

    let (_, ended) = campaign.end();

    assert_eq!(ended.code(), Some(1));
    assert!(!findings(place.path()).is_empty());
    assert!(
        !contents(place.path())
            .iter()
            .any(|(path, _)| is_unfinished(path))
    );
}

fn deaths(status: &serde_json::Value) -> Option<u64> {
    let jobs = status["per_job"].as_array()?;
    jobs.iter().map(|job| job["deaths"].as_u64()).sum()
}

#[test]
fn what_a_killed_campaign_left_unfinished_is_gone_after_the_next() {
    let place = tempdir().expect("a directory");
    let (corpus, found) = (place.path().join("corpus"), place.path().join("findings"));
    // As a process leaves it whose number nobody can have.
    let half = found.join(".new-4294967295-x1");
    fs::create_dir_all(&half).expect("a directory");
    fs::create_dir_all(&corpus).expect("a directory");
    fs::write(half.join("finding.json"), "{\"sign").expect("a file");
    fs::write(corpus.join(".4294967295"), "cofferd").expect("a file");

    Campaign::start("wanders", place.path(), &["--execs", "1000"]).end();

    assert!(
        !contents(place.path())
            .iter()
            .any(|(path, _)| is_unfinished(path))
    );
}

#[test]
fn driver_that_spins_is_a_finding_with_its_place_and_the_campaign_goes_on() {
    let place = tempdir().expect("a directory");
    let options = ["--hang", "1s", "--time", LONG];
    let campaign = Campaign::start("spins", place.path(), &options);

    let found = campaign.wait_for(|it| it["oracle"] == "hang");
    campaign.wait_for(|it| deaths(it) > Some(1));
    campaign.signal(libc::SIGTERM);

    campaign.end();
    let signature = found["signature"].as_str().expect("a signature");
    assert_eq!(found["location"]["function"], "rough_drivers::driver::spin");
    assert_eq!(findings(place.path()), [signature]);
    let finding = place.path().join("findings").join(signature);
    let (code, said) = run(&["replay", &finding.to_string_lossy(), "--hang", "1s"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("rough_drivers::driver::spin"), "{said}");
}

#[test]
fn panic_within_a_panic_is_a_finding_that_replays_and_the_campaign_goes_on() {
    let place = tempdir().expect("a directory");
    let (lines, ended) = Campaign::start("panics-twice", place.path(), &["--execs", "40"]).end();

    let found = lines.iter().find(|it| it["oracle"] == "crash").expect("it");
    let last = lines.last().expect("a status");
    let signature = found["signature"].as_str().expect("a signature");
    assert_eq!(ended.code(), Some(1));
    assert_eq!(last["executions"], 40);
    assert!(deaths(last) > Some(1), "{last}");
    let finding = place.path().join("findings").join(signature);
    let (code, said) = run(&["replay", &finding.to_string_lossy()]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("it panics while it panics"), "{said}");
    let (code, said) = run(&["replay", &finding.to_string_lossy(), "--times", "3"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("shown 3 of 3 times"), "{said}");
    let (code, said) = run(&["minimize", &finding.to_string_lossy()]);
    assert_eq!(code, 1, "{said}");
    // One call that the device lies to.
    let actions = said.lines().count().saturating_sub(3);
    assert!((1..=3).contains(&actions), "{said}");
}

#[test]
fn campaigns_that_are_joined_share_programs_and_findings() {
    let places = [
        tempdir().expect("a directory"),
        tempdir().expect("a directory"),
    ];
    let first = Campaign::start(
        "wanders",
        places[0].path(),
        &["--listen", "0", "--time", LONG],
    );
    let line = first.wait_for_error("--broker");
    let address = line.rsplit(' ').next().expect("an address");
    assert!(address.starts_with("127.0.0.1:"), "{line}");
    let found = first.wait_for(|it| it["message"] == "the device knows the way");

    // Without feedback nobody learns what the driver compares with: this one is told.
    let second = ["--broker", address, "--time", LONG, "--no-feedback"];
    let second = Campaign::start("wanders", places[1].path(), &second);
    let same = second.wait_for(|it| it["signature"] == found["signature"]);
    let third_place = tempdir().expect("a directory");
    let third = Campaign::start(
        "wanders",
        third_place.path(),
        &["--broker", address, "--time", LONG],
    );
    third.wait_for(|it| it["per_job"][0]["imported"].as_u64() > Some(0));
    first.wait_for(|it| it["peers"] == 2);

    for campaign in [second, third] {
        campaign.signal(libc::SIGTERM);
        campaign.end();
    }
    first.wait_for(|it| it["peers"] == 0);
    first.signal(libc::SIGTERM);
    first.end();
    let signature = same["signature"].as_str().expect("a signature").to_owned();
    assert!(findings(places[1].path()).contains(&signature));
}

#[test]
fn peer_that_is_none_is_left_and_the_campaign_goes_on() {
    let place = tempdir().expect("a directory");
    let campaign = Campaign::start("wanders", place.path(), &["--listen", "0", "--time", LONG]);
    let line = campaign.wait_for_error("--broker");
    let address = line.rsplit(' ').next().expect("an address");
    let hello = "{\"hello\":{\"protocol\":1,\"target\":\"wanders\"}}\n";
    for (said, why) in [
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), "could not join"),
        (hello.replace("wanders", "blinks"), "it fuzzes blinks"),
        (hello.replace(":1", ":9"), "version 9"),
        (
            hello.to_owned() + "{\"program\":{\"program\":\"rm\"}}\n",
            "program that is none",
        ),
        (hello.to_owned() + &"x".repeat(3 << 20), "too long"),
    ] {
        let mut stream = TcpStream::connect(address).expect("a connection");
        // It may be left in the middle of it.
        let _ = stream.write_all(said.as_bytes());
        campaign.wait_for_error(why);
    }
    // Nothing at all, while others join.
    let _silent = TcpStream::connect(address).expect("a connection");
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.write_all(hello.as_bytes()).expect("room");
    let mut answer = String::new();
    let mut reader = BufReader::new(stream);
    reader.read_line(&mut answer).expect("an answer");
    assert_eq!(answer, hello);
    campaign.wait_for(|it| it["peers"] == 1);

    campaign.signal(libc::SIGTERM);
    let (_, ended) = campaign.end();
    assert!(matches!(ended.code(), Some(0 | 1)), "{ended}");
}

#[test]
fn broker_that_is_not_there_is_told_and_nothing_started() {
    let place = tempdir().expect("a directory");
    let out = place.path().to_string_lossy();
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr());
    let nobody = nobody.expect("a port").to_string();
    // Somebody who says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let dumb = silent.local_addr().expect("a port").to_string();
    for (broker, why) in [
        (nobody.as_str(), "refused"),
        ("nowhere", "HOST:PORT"),
        (dumb.as_str(), "no answer within 5 s"),
    ] {
        let (code, said) = run(&["fuzz", "wanders", "--out", &out, "--broker", broker]);
        assert_eq!(code, 2, "{said}");
        assert!(said.contains(why) && said.contains(broker), "{said}");
    }
    let (code, said) = run(&["fuzz", "wanders", "--out", &out, "--listen", "here"]);
    assert_eq!(code, 2, "{said}");
}

#[test]
fn only_loopback_is_listened_on_without_a_warning() {
    let place = tempdir().expect("a directory");
    let options = ["--listen", "0.0.0.0:0", "--execs", "100"];
    let campaign = Campaign::start("wanders", place.path(), &options);
    let line = campaign.wait_for_error("warning");
    assert!(line.contains("without authentication"), "{line}");
    campaign.end();
}

#[test]
fn nothing_of_a_campaign_is_left_running() {
    let place = tempdir().expect("a directory");
    let campaign = Campaign::start("wanders", place.path(), &["--jobs", "4", "--execs", "4000"]);
    let parent = campaign.child.id();
    campaign.end();
    assert!(children(parent).is_empty());
    assert!(runner().exists());
}
