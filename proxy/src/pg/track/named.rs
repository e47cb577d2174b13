//! SQL's EXECUTE: what the prepared statement of a name does is known to the session alone.
//!
//! A name may stand for what was prepared before, or for what is being prepared right now, by a
//! statement that may yet fail. So all of them count.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Statements, Track};
use crate::pg::classify::{Eyes, Finding, Judgement, Kind, Reading, Statement, Verdict, judge};

/// What was prepared by statements that are not answered yet.
#[derive(Debug, Default)]
struct Said(HashMap<String, Vec<Finding>>);

impl Said {
    /// The judgement with each EXECUTE judged by what its name may stand for.
    fn resolve(
        &mut self,
        judgement: Arc<Judgement>,
        known: &Statements,
        eyes: &Eyes,
    ) -> Arc<Judgement> {
        let named = |s: &Statement| matches!(s.kind, Kind::Prepare { .. } | Kind::Execute { .. });
        if !judgement.statements.iter().any(named) {
            return judgement;
        }
        let mut resolved = (*judgement).clone();
        for statement in &mut resolved.statements {
            match &statement.kind {
                Kind::Prepare { name } => {
                    let said = self.0.entry(name.clone()).or_default();
                    said.extend(statement.prepared.clone());
                }
                Kind::Execute { name } => {
                    let said = self.0.get(name).into_iter().flatten().cloned();
                    let all = said.chain(known.stands_for(name, eyes));
                    if let Some(finding) = all.reduce(Finding::and) {
                        statement.decide(finding);
                    }
                }
                _ => {}
            }
        }
        Arc::new(resolved)
    }
}

impl Statements {
    /// What a name may stand for, in either namespace; they are one on the server.
    fn stands_for(&self, name: &str, eyes: &Eyes) -> impl Iterator<Item = Finding> {
        let sql = self.sql.get(name).and_then(|text| {
            let mut judged = judge(text.as_bytes(), Reading::default(), eyes);
            judged.statements.pop()?.prepared
        });
        let protocol = self.get(name.as_bytes()).and_then(|it| {
            let judged = it.judgement(eyes)?;
            let findings = judged.statements.iter().map(Statement::finding);
            findings.reduce(Finding::and)
        });
        sql.into_iter().chain(protocol)
    }
}

impl Track {
    /// Whether nothing in flight can change anything.
    pub(crate) fn only_reads(&self, eyes: &Eyes) -> bool {
        let mut said = Said::default();
        self.in_flight().all(|group| {
            let runs = group.judgements(eyes).zip(group.bound(eyes));
            runs.is_some_and(|(executed, bound)| {
                executed.into_iter().chain(bound).all(|judgement| {
                    let resolved = said.resolve(judgement, &self.statements, eyes);
                    resolved.verdict() == Verdict::Read
                })
            })
        })
    }
}
