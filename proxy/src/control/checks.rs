//! Checks of the user's: what must be so before and after a move, beyond what is looked at anyway.
//!
//! A check only looks: its query runs in a read-only transaction, its request is a GET. It passes
//! when all of its attempts did (or, for what is to be given up, when none did). What a check could
//! not find out it has not passed.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::sleep;
use writefence_admin::api::{Finding, Level};
use writefence_config::{Check, CheckAt, CheckOf, Means, OnFailure};

use super::desk::Desk;
use super::error::chain;
use super::hooks::Told;
use crate::clock;
use crate::outside::{self, Method, Program};
use crate::upstream::Region;

/// First values by check, as they were just before a promotion.
pub(crate) type Kept = BTreeMap<String, f64>;

/// What is compared with after the move.
pub(crate) struct Scene<'a> {
    /// The primary in force; `None` where it is given up and nothing is asked of it.
    pub(crate) primary: Option<&'a Region>,
    /// The candidate before the move, the old primary after it.
    pub(crate) other: Option<&'a Region>,
    /// Values from just before the promotion, after it.
    pub(crate) kept: Option<&'a Kept>,
}

/// The checks before a move.
pub(crate) async fn before(desk: &Desk, scene: &Scene<'_>) -> Vec<Finding> {
    all(desk, scene, CheckAt::Before).await
}

/// The checks after it.
pub(crate) async fn after(desk: &Desk, scene: &Scene<'_>) -> Vec<Finding> {
    all(desk, scene, CheckAt::After).await
}

async fn all(desk: &Desk, scene: &Scene<'_>, at: CheckAt) -> Vec<Finding> {
    let mut found = Vec::new();
    for check in desk
        .checks
        .iter()
        .filter(|c| c.at == at || c.at == CheckAt::Both)
    {
        let made = made(desk, check, scene).await;
        let name = format!("check_{}", check.name);
        found.push(match (made, check.on_failure) {
            (Ok(text), _) => Finding::new(Level::Pass, name, text),
            (Err(text), OnFailure::Stop) => Finding::new(Level::Block, name, text),
            (Err(text), OnFailure::Continue) => Finding::new(Level::Warn, name, text),
        });
    }
    found
}

/// Takes the values that must not be lower after the move; what cannot be asked is left out, and is
/// then missing in the comparison.
pub(crate) async fn keep(desk: &Desk, old: &Region) -> Kept {
    let mut kept = Kept::new();
    for check in desk.checks.iter().filter(|check| check.keeps) {
        if let Means::Sql(sql) = &check.means
            && let Ok(value) = number(desk, old, sql).await
        {
            kept.insert(check.name.clone(), value);
        }
    }
    kept
}

/// All attempts of one check: what was found, or what is wrong.
async fn made(desk: &Desk, check: &Check, scene: &Scene<'_>) -> Result<String, String> {
    let name = &check.name;
    let mut took = Vec::new();
    let mut last = String::new();
    for n in 0..check.times {
        if n > 0 {
            sleep(check.every).await;
        }
        let from = clock::now();
        let attempt = tokio::time::timeout(check.timeout, attempt(desk, check, scene)).await;
        let attempt = attempt.unwrap_or_else(|_| Err(format!("no end within {:?}", check.timeout)));
        took.push(from.elapsed());
        let count = format!("attempt {} of {}", n + 1, check.times);
        last = match (attempt, check.fails) {
            (Ok(text), false) | (Err(text), true) => text,
            (Ok(text), true) => {
                return Err(format!(
                    "check {name} should fail and does not ({count}): {text}"
                ));
            }
            (Err(text), false) => return Err(format!("check {name} failed ({count}): {text}")),
        };
    }
    let slow = slowest_of_hundred(&mut took);
    match check.p99 {
        Some(most) if slow > most => Err(format!("check {name} took {slow:?} (p99), not {most:?}")),
        Some(_) => Ok(format!("check {name}: {last}, p99 {slow:?}")),
        None => Ok(format!("check {name}: {last}")),
    }
}

/// Of a hundred attempts the slowest but one; of fewer the slowest.
fn slowest_of_hundred(took: &mut [Duration]) -> Duration {
    took.sort_unstable();
    let place = (took.len() * 99).div_ceil(100).saturating_sub(1);
    took.get(place).copied().unwrap_or_default()
}

async fn attempt(desk: &Desk, check: &Check, scene: &Scene<'_>) -> Result<String, String> {
    match &check.means {
        Means::Command(words) => {
            let facts = desk.book.facts();
            let told = facts.map(|facts| Told::of(desk, &facts, "check", &check.name));
            let env = told.as_ref().map(Told::env).unwrap_or_default();
            let input = told.map(|told| told.json().to_string()).unwrap_or_default();
            let program = Program {
                words,
                env: &env,
                input: input.as_bytes(),
                timeout: check.timeout,
            };
            let said = outside::run(&program).await.map_err(|e| chain(&e))?;
            Ok(said.lines().next().unwrap_or("passed").to_owned())
        }
        Means::Http(url) => outside::request(Method::Get, url, String::new(), check.timeout)
            .await
            .map(|_| format!("{url} answers"))
            .map_err(|e| chain(&e)),
        Means::Sql(sql) => query(desk, check, scene, sql).await,
    }
}

async fn query(desk: &Desk, check: &Check, scene: &Scene<'_>, sql: &str) -> Result<String, String> {
    let region = match check.of {
        CheckOf::Primary => scene.primary.ok_or("there is no primary to ask")?,
        CheckOf::Other => scene.other.ok_or("there is no other region to ask")?,
    };
    if check.most.is_none() && !check.keeps {
        let said = desk.servers.ask(region, sql).await.map_err(|e| e.message)?;
        return Ok(format!(
            "{region} says {}",
            said.unwrap_or_else(|| "NULL".to_owned())
        ));
    }
    let value = number(desk, region, sql).await?;
    if let Some(most) = check.most
        && value > most.as_secs_f64()
    {
        return Err(format!(
            "{region} says {value}, more than {} s",
            most.as_secs_f64()
        ));
    }
    if let Some(kept) = scene.kept.filter(|_| check.keeps) {
        let was = kept.get(&check.name);
        let was = was.ok_or("its value before the promotion is not known")?;
        if value < *was {
            return Err(format!(
                "{region} says {value}, before the promotion it was {was}"
            ));
        }
        return Ok(format!(
            "{region} says {value}, before the promotion it was {was}"
        ));
    }
    Ok(format!("{region} says {value}"))
}

async fn number(desk: &Desk, region: &Region, sql: &str) -> Result<f64, String> {
    let said = desk.servers.ask(region, sql).await.map_err(|e| e.message)?;
    let said = said.ok_or_else(|| format!("{region} says NULL, a number is needed"))?;
    let value = said.trim().parse::<f64>();
    value.map_err(|_| format!("{region} says {said:?}, a number is needed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_few_attempts_the_slowest_counts_and_of_hundreds_one_in_a_hundred_does_not() {
        let ms = Duration::from_millis;
        assert_eq!(slowest_of_hundred(&mut [ms(3), ms(9), ms(1)]), ms(9));
        let mut hundred: Vec<_> = (1..=100).map(ms).collect();
        assert_eq!(slowest_of_hundred(&mut hundred), ms(99));
        assert_eq!(slowest_of_hundred(&mut []), Duration::ZERO);
    }
}
