//! Metrics, made at the scrape from the counters where they are kept.
//!
//! Every label comes from a closed set and every value of it is shown from the start, so that a
//! missing series is a fault and not a zero.

use std::cell::RefCell;
use std::collections::HashMap;

use prometheus::{Encoder, GaugeVec, IntCounterVec, Opts, Registry, TextEncoder};

use crate::control::{Daemon, Figures, RegionFigures};
use crate::gate::{LaneCounts, Outcome};

/// The exposition text.
///
/// # Errors
/// A name or a label that the format refuses, which a test rules out.
pub(crate) fn render(daemon: &Daemon) -> prometheus::Result<String> {
    text(&daemon.figures())
}

/// The exposition text of these figures.
pub(super) fn text(figures: &[Figures]) -> prometheus::Result<String> {
    let page = Page::default();
    for group in figures {
        of_gate(&page, group)?;
        of_sessions(&page, group)?;
        of_http(&page, group)?;
        of_tcp(&page, group)?;
        of_control(&page, group)?;
        of_tripwire(&page, group)?;
        for region in &group.regions {
            of_region(&page, &group.group, region)?;
        }
    }
    let mut text = Vec::new();
    TextEncoder::new().encode(&page.registry.gather(), &mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn of_gate(page: &Page, figures: &Figures) -> prometheus::Result<()> {
    let group = ("group", figures.group.as_str());
    let epoch = figures.counts.epoch.value();
    page.gauge(
        "writefence_epoch",
        "Epoch of the gate.",
        &[group],
        float(epoch),
    )?;
    for (lane, fenced, counts) in [
        ("http", figures.fenced[0], &figures.counts.http),
        ("sql", figures.fenced[1], &figures.counts.sql),
    ] {
        let lane = ("lane", lane);
        for (phase, holds) in [("open", !fenced), ("fenced", fenced)] {
            let labels = [group, lane, ("phase", phase)];
            page.gauge(
                "writefence_phase",
                "1 for the phase the lane is in.",
                &labels,
                one(holds),
            )?;
        }
        of_lane(page, &[group, lane], counts)?;
    }
    let help = "Writes whose outcome is not known.";
    page.gauge(
        "writefence_unknown_writes",
        help,
        &[group],
        float(figures.counts.unknown),
    )
}

fn of_lane(page: &Page, labels: &[Label<'_>], counts: &LaneCounts) -> prometheus::Result<()> {
    let admitted = counts.admitted_total;
    page.counter(
        "writefence_admitted_total",
        "Permits issued.",
        labels,
        admitted,
    )?;
    let released = counts.released_total;
    page.counter(
        "writefence_released_total",
        "Permits ended.",
        labels,
        released,
    )?;
    let in_flight = float(admitted.saturating_sub(released));
    page.gauge("writefence_in_flight", "Permits alive.", labels, in_flight)?;
    page.counter(
        "writefence_held_total",
        "Writes held.",
        labels,
        counts.held_total,
    )?;
    for (end, n) in [
        ("released", counts.held_released),
        ("expired", counts.held_expired),
        ("abandoned", counts.held_abandoned),
        ("refused", counts.held_refused),
        ("cancelled", counts.held_cancelled),
    ] {
        let labels = [labels, &[("end", end)]].concat();
        let help = "Held writes by how they ended.";
        page.counter("writefence_held_ended_total", help, &labels, n)?;
    }
    let waiting = float(counts.held_waiting);
    page.gauge(
        "writefence_held_waiting",
        "Writes held now.",
        labels,
        waiting,
    )?;
    let bytes = float(counts.held_bytes);
    page.gauge(
        "writefence_held_bytes",
        "Bytes of the writes held now.",
        labels,
        bytes,
    )?;
    let help = "Writes refused because the waiting room was full.";
    page.counter(
        "writefence_turned_away_total",
        help,
        labels,
        counts.turned_away_total,
    )
}

fn of_http(page: &Page, figures: &Figures) -> prometheus::Result<()> {
    let group = ("group", figures.group.as_str());
    for (name, help, label, n) in &figures.http {
        let labels: Vec<Label<'_>> = std::iter::once(group).chain(*label).collect();
        page.counter(name, help, &labels, *n)?;
    }
    let requests = &figures.requests;
    for (state, n) in [
        ("executing", requests.executing),
        ("orphaned", requests.orphaned),
        ("held", requests.held),
    ] {
        let labels = [group, ("state", state)];
        let help = "HTTP requests that hold a permit or wait for one, by state.";
        page.gauge("writefence_http_requests_busy", help, &labels, float(n))?;
    }
    page.gauge(
        "writefence_http_connections",
        "HTTP clients that are connected.",
        &[group],
        float(figures.http_connections),
    )
}

fn of_tcp(page: &Page, figures: &Figures) -> prometheus::Result<()> {
    let group = ("group", figures.group.as_str());
    for (name, help, label, n) in &figures.tcp {
        page.counter(name, help, &[group, *label], *n)?;
    }
    let counts = &figures.connections;
    for (state, n) in [
        ("open", counts.executing),
        ("orphaned", counts.orphaned),
        ("held", counts.held),
    ] {
        let help = "TCP connections that are open upstream or wait to be, by state.";
        let labels = [group, ("state", state)];
        page.gauge("writefence_tcp_connections", help, &labels, float(n))?;
    }
    Ok(())
}

fn of_sessions(page: &Page, figures: &Figures) -> prometheus::Result<()> {
    let group = ("group", figures.group.as_str());
    let counts = &figures.sessions;
    for (state, n) in [
        ("executing", counts.executing),
        ("orphaned", counts.orphaned),
        ("in_transaction", counts.open_transactions),
        ("held", counts.held),
    ] {
        let labels = [group, ("state", state)];
        let help = "Sessions that hold a permit or wait for one, by state.";
        page.gauge("writefence_sessions_busy", help, &labels, float(n))?;
    }
    page.gauge(
        "writefence_sessions",
        "Live sessions.",
        &[group],
        float(counts.total),
    )?;
    for (name, help, n) in &figures.totals {
        page.counter(name, help, &[group], *n)?;
    }
    Ok(())
}

fn of_control(page: &Page, figures: &Figures) -> prometheus::Result<()> {
    let group = ("group", figures.group.as_str());
    for (outcome, n) in &figures.drains {
        let outcome = match outcome {
            Outcome::Drained => "drained",
            Outcome::DrainedWithUnknown => "drained_with_unknown",
            Outcome::TimedOut => "timed_out",
            Outcome::Superseded => "superseded",
        };
        let labels = [group, ("outcome", outcome)];
        page.counter("writefence_drains_total", "Drains by outcome.", &labels, *n)?;
    }
    for (state, n) in &figures.runs {
        let labels = [group, ("state", *state)];
        page.counter("writefence_runs_total", "Runs ended, by how.", &labels, *n)?;
    }
    let help = "Changes of the target in force.";
    page.counter(
        "writefence_repoints_total",
        help,
        &[group],
        figures.repoints,
    )?;
    let help = "1 while a run is live.";
    page.gauge("writefence_run_live", help, &[group], one(figures.run_live))?;
    let help = "Writes stopped in the last run that opened again, seconds.";
    if let Some(ms) = figures.write_gap_ms {
        page.gauge(
            "writefence_write_gap_seconds",
            help,
            &[group],
            float(ms) / 1000.0,
        )?;
    }
    Ok(())
}

fn of_tripwire(page: &Page, figures: &Figures) -> prometheus::Result<()> {
    let group = [("group", figures.group.as_str())];
    let help = "Regions that take writes, or were written to, and are not the primary in force.";
    let regions = u64::try_from(figures.split_brain).unwrap_or(u64::MAX);
    page.gauge("writefence_split_brain", help, &group, float(regions))?;
    let help = "How often a second side that takes writes was noticed.";
    page.counter(
        "writefence_split_brain_total",
        help,
        &group,
        figures.split_brain_total,
    )
}

fn of_region(page: &Page, group: &str, region: &RegionFigures) -> prometheus::Result<()> {
    let labels = [("group", group), ("region", region.name.as_str())];
    if let Some(lag) = region.lag_seconds {
        let help = "How far the region's server is behind the primary.";
        page.gauge("pg_replication_lag_seconds", help, &labels, lag)?;
    }
    if let Some(lag) = region.lag_bytes {
        let help = "Bytes of log that the region's server has not replayed.";
        page.gauge(
            "writefence_replication_lag_bytes",
            help,
            &labels,
            float(lag),
        )?;
    }
    for status in ["healthy", "degraded", "unhealthy"] {
        let labels = [labels[0], labels[1], ("status", status)];
        let holds = one(region.status == status);
        page.gauge(
            "region_health_status",
            "1 for the region's status.",
            &labels,
            holds,
        )?;
    }
    if let Some((levels, age)) = region.readiness {
        for (level, n) in ["pass", "warn", "block"].into_iter().zip(levels) {
            let labels = [labels[0], labels[1], ("level", level)];
            let help = "Conditions of a move to the region, by what was found last.";
            page.gauge("writefence_preflight_findings", help, &labels, float(n))?;
        }
        let help = "1 if nothing stands in the way of a move to the region.";
        let ready = one(levels[2] == 0);
        page.gauge("writefence_preflight_ready", help, &labels, ready)?;
        let help = "Since the conditions of a move to the region were looked at.";
        page.gauge("writefence_preflight_age_seconds", help, &labels, age)?;
    }
    let accepted = one(region.accepted);
    page.gauge(
        "writefence_region_accepted",
        "1 for the primary in force.",
        &labels,
        accepted,
    )
}

type Label<'a> = (&'a str, &'a str);

/// The families of one scrape: each is made once and gets a series per set of labels.
#[derive(Default)]
struct Page {
    registry: Registry,
    counters: RefCell<HashMap<String, IntCounterVec>>,
    gauges: RefCell<HashMap<String, GaugeVec>>,
}

impl Page {
    fn counter(
        &self,
        name: &str,
        help: &str,
        labels: &[Label<'_>],
        n: u64,
    ) -> prometheus::Result<()> {
        let (names, values): (Vec<_>, Vec<_>) = labels.iter().copied().unzip();
        let mut families = self.counters.borrow_mut();
        if !families.contains_key(name) {
            let family = IntCounterVec::new(Opts::new(name, help), &names)?;
            self.registry.register(Box::new(family.clone()))?;
            families.insert(name.to_owned(), family);
        }
        families[name]
            .get_metric_with_label_values(&values)?
            .inc_by(n);
        Ok(())
    }

    fn gauge(
        &self,
        name: &str,
        help: &str,
        labels: &[Label<'_>],
        value: f64,
    ) -> prometheus::Result<()> {
        let (names, values): (Vec<_>, Vec<_>) = labels.iter().copied().unzip();
        let mut families = self.gauges.borrow_mut();
        if !families.contains_key(name) {
            let family = GaugeVec::new(Opts::new(name, help), &names)?;
            self.registry.register(Box::new(family.clone()))?;
            families.insert(name.to_owned(), family);
        }
        families[name]
            .get_metric_with_label_values(&values)?
            .set(value);
        Ok(())
    }
}

fn one(holds: bool) -> f64 {
    if holds { 1.0 } else { 0.0 }
}

/// A gauge is a float in the exposition format; beyond 2^53 the last digits are lost there anyway.
#[expect(
    clippy::cast_precision_loss,
    reason = "the exposition format has only floats"
)]
fn float(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::{Counts, Epoch};
    use crate::http::HttpFigures;
    use crate::requests::RequestCounts;
    use crate::sessions::SessionCounts;
    use crate::tcp::TcpFigures;

    fn figures(group: &str) -> Figures {
        let lane = LaneCounts {
            admitted_total: 5,
            released_total: 3,
            ..LaneCounts::default()
        };
        Figures {
            group: group.to_owned(),
            counts: Counts {
                epoch: Epoch::new(7),
                http: LaneCounts::default(),
                sql: lane,
                unknown: 1,
            },
            fenced: [false, true],
            sessions: SessionCounts::default(),
            totals: vec![("writefence_sessions_started_total", "Sessions begun.", 9)],
            drains: vec![(Outcome::Drained, 2)],
            runs: vec![("done", 1)],
            repoints: 1,
            run_live: false,
            split_brain: 0,
            split_brain_total: 0,
            write_gap_ms: Some(40),
            requests: RequestCounts::default(),
            http: HttpFigures::default().totals(),
            http_connections: 2,
            connections: RequestCounts::default(),
            tcp: TcpFigures::default().totals(),
            regions: vec![RegionFigures {
                name: "a".to_owned(),
                status: "healthy",
                lag_seconds: Some(0.5),
                lag_bytes: None,
                accepted: true,
                readiness: Some(([3, 1, 0], 2.0)),
            }],
        }
    }

    #[test]
    fn groups_share_families_and_health_is_one_hot() {
        let page = text(&[figures("main"), figures("other")]).unwrap();
        for line in [
            "writefence_phase{group=\"main\",lane=\"sql\",phase=\"fenced\"} 1",
            "writefence_phase{group=\"main\",lane=\"sql\",phase=\"open\"} 0",
            "writefence_in_flight{group=\"other\",lane=\"sql\"} 2",
            "writefence_tcp_connections{group=\"main\",state=\"held\"} 0",
            "writefence_tcp_connections_total{fate=\"relayed\",group=\"main\"} 0",
            "writefence_tcp_bytes_total{direction=\"to_server\",group=\"main\"} 0",
            "region_health_status{group=\"main\",region=\"a\",status=\"healthy\"} 1",
            "region_health_status{group=\"main\",region=\"a\",status=\"degraded\"} 0",
            "region_health_status{group=\"main\",region=\"a\",status=\"unhealthy\"} 0",
            "pg_replication_lag_seconds{group=\"main\",region=\"a\"} 0.5",
            "writefence_write_gap_seconds{group=\"main\"} 0.04",
            "writefence_preflight_findings{group=\"main\",level=\"warn\",region=\"a\"} 1",
            "writefence_preflight_ready{group=\"main\",region=\"a\"} 1",
        ] {
            assert!(page.contains(line), "{line} is not in\n{page}");
        }
        assert!(
            !page.contains("replication_lag_bytes"),
            "what is not known is not 0"
        );
    }
}
