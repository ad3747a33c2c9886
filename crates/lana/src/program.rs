//! The integer program of a budget: from pool, scores, latency table and rules to a [`Problem`], and what its answers
//! mean for the whole network. Knows no network and no weights.

use std::collections::BTreeMap;

use lana_graph::{Cost, fits};
use lana_latency::{Deployment, Precision, Table};
use lana_models::pool::Operation;
use lana_select::{Choice, Layer, LimitKind, Members, Outcome, Problem, Solution};

use crate::rules::Rules;
use crate::stages::tables;
use crate::target::Target;
use crate::{
    Amount, Budget, Candidate, Config, Error, Footprint, Limit, PoolLayer, PoolRecord, Quantity, Result,
    Scores,
};

/// What the program of one budget is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Program<'a> {
    pub(crate) config: &'a Config,
    pub(crate) budget: &'a Budget,
    pub(crate) pool: &'a PoolRecord,
    /// Cost of the whole teacher.
    pub(crate) teacher: Cost,
    /// Share of its layer's multiply-accumulates that an operation must have to be selected, the identity aside.
    pub(crate) floor: f64,
}

/// The lookup table of a deployment on which students for a budget are measured.
#[derive(Clone, Debug)]
pub(crate) struct Priced {
    pub(crate) deployment: Deployment,
    /// The budget's limit there, if it has one.
    pub(crate) amount: Option<Amount>,
    pub(crate) table: Table,
    /// Whether networks can be measured there, from here.
    pub(crate) target: Target,
    /// The teacher's latency now over that in the table.
    pub(crate) drift: f64,
}

impl Priced {
    /// The most milliseconds that the budget allows, on the table's scale.
    pub(crate) fn limit_ms(&self) -> Option<f64> {
        self.amount.map(|amount| match amount {
            Amount::Relative(share) => share * self.table.teacher_ms(),
            other => other.most(f64::NAN, self.deployment.batch) / self.drift,
        })
    }
}

/// A limit that is a row of the program: a sum over layers.
struct Row {
    limit: Limit,
    /// Of the whole teacher, and of what stands in no layer.
    teacher: f64,
    fixed: f64,
    /// The most that a student may have, and that less what is kept in reserve.
    allowed: f64,
    max: f64,
}

impl<'a> Program<'a> {
    /// The program for a budget, in which every operation of the pool may be selected.
    pub(crate) fn new(config: &'a Config, budget: &'a Budget, pool: &'a PoolRecord, teacher: Cost) -> Self {
        Program { config, budget, pool, teacher, floor: 0.0 }
    }

    /// The same with thin operations left out.
    pub(crate) fn above(self, floor: f64) -> Self {
        Program { floor, ..self }
    }
}

impl Program<'_> {
    /// The integer program: one operation a layer, least total score, within every limit, under the rules. Without scores,
    /// every operation of the pool with none: what could be reached. `tables` are those of the budget's deployments; files
    /// are `size_error` times as large as the sum of their parts.
    pub(crate) fn problem(
        &self,
        scores: Option<&Scores>,
        tables: &[Priced],
        size_error: f64,
    ) -> Result<Problem> {
        let by_kl = self.config.score.by == "kl";
        let precision = self.precision()?;
        let mut layers = Vec::new();
        for place in &self.pool.layers {
            let choices = place.operations.iter().filter_map(|operation| {
                let score = match scores {
                    Some(scores) if operation.name != Operation::TEACHER => {
                        let score = scores.layers.get(&place.layer)?.get(&operation.name)?;
                        if by_kl { score.kl.mean } else { score.loss.mean }
                    }
                    _ => 0.0,
                };
                let size = operation.footprint.size_bytes(precision) as f64;
                let mut costs = BTreeMap::from([
                    (Quantity::Params.cost_name().to_string(), operation.cost.params as f64),
                    (Quantity::Macs.cost_name().to_string(), operation.cost.macs as f64),
                    (Quantity::Size.cost_name().to_string(), size * size_error),
                ]);
                for (name, priced) in self.latency_names(tables) {
                    costs.insert(name, priced.table.cost(&place.layer, &operation.name)?);
                }
                Some(Choice { name: operation.name.clone(), score, costs })
            });
            layers.push(Layer { name: place.layer.clone(), choices: choices.collect() });
        }
        let mut budgets = BTreeMap::new();
        for row in self.rows(tables, size_error)? {
            let bound = lana_select::Budget { min: None, max: Some(row.max - row.fixed) };
            budgets.insert(row.limit.cost_name(), bound);
        }
        let select = &self.config.select;
        let Rules { mut forbidden, forced, caps } = Rules::parse(select)?;
        forbidden.extend(self.too_much_memory(&layers)?);
        let as_given = forbidden.len();
        forbidden.extend(self.thin_operations(&layers));
        let problem = Problem {
            forbidden,
            forced,
            caps,
            solutions: select.solutions,
            max_overlap: select.max_overlap,
            time_limit_s: Some(select.time_limit_s),
            gap: scores.map_or(0.0, |scores| select.gap * standard_error(scores, by_kl)),
            ..Problem::new(layers, budgets)
        };
        // What the user wrote is checked without what is added to it.
        let given = Problem { forbidden: problem.forbidden[..as_given].to_vec(), ..problem.clone() };
        given.validate().map_err(|error| self.as_written(error))?;
        problem.validate().map_err(|error| Error::Infeasible {
            message: format!(
                "operations from {} of their layer's multiply-accumulates alone leave no choice: {error}",
                self.floor
            ),
            hint: format!("lower the least of `select.floors`{}", self.rules_hint()),
        })?;
        Ok(problem)
    }

    /// Operations below the floor, as rules that forbid them; those that the user's rules ask for by name aside.
    ///
    /// Trained by themselves, thin operations imitate their layers well, and the sum of scores takes many of them where latency is
    /// short. But they leave a network that fine-tuning may not improve much: few wide layers start worse and can end better.
    fn thin_operations(&self, layers: &[Layer]) -> Vec<Members> {
        let asked = self.asked();
        let places = self.pool.layers.iter().zip(layers);
        let thin = places.filter_map(|(place, layer)| {
            let may_go = |choice: &&Choice| {
                share(place, &choice.name).is_some_and(|share| share < self.floor)
                    && !is_asked(&asked, &place.layer, &choice.name)
            };
            let choices: Vec<String> = layer.choices.iter().filter(may_go).map(|c| c.name.clone()).collect();
            (!choices.is_empty()).then(|| Members { layers: vec![place.layer.clone()], choices })
        });
        thin.collect()
    }

    /// The least share of its layer's multiply-accumulates that an operation of a selection has, what no floor is for aside; 1 at
    /// most.
    pub(crate) fn thinnest(&self, choices: &[String]) -> f64 {
        let asked = self.asked();
        let places = self.pool.layers.iter().zip(choices);
        let free = places.filter(|(place, choice)| !is_asked(&asked, &place.layer, choice));
        free.filter_map(|(place, choice)| share(place, choice)).fold(1.0, f64::min)
    }

    /// What the user's rules ask for by name: patterns of layers and of operations. None if they cannot be read, which is said where
    /// they are.
    fn asked(&self) -> Vec<(Vec<String>, Vec<String>)> {
        let Ok(Rules { forced, caps, .. }) = Rules::parse(&self.config.select) else { return Vec::new() };
        let least = caps.into_iter().filter(|cap| cap.min.is_some());
        let forced = forced.into_iter().map(|members| (members.layers, members.choices));
        forced.chain(least.map(|cap| (cap.layers, cap.choices))).collect()
    }

    fn precision(&self) -> Result<Precision> {
        self.budget.precision(&self.config.latency.deployment())
    }

    /// The tables with the names of their costs.
    fn latency_names<'a>(&self, tables: &'a [Priced]) -> Vec<(String, &'a Priced)> {
        let limits = self.budget.limits().iter().filter(|l| l.quantity == Quantity::Latency);
        let names = limits.map(Limit::cost_name).chain([Quantity::Latency.cost_name().to_string()]);
        names.zip(tables).collect()
    }

    /// The limits that are sums.
    fn rows(&self, tables: &[Priced], size_error: f64) -> Result<Vec<Row>> {
        let precision = self.precision()?;
        let mut tables = tables.iter();
        let mut rows = Vec::new();
        for limit in self.budget.limits() {
            let outside = self.outside();
            let (teacher, fixed, allowed, reserve) = match limit.quantity {
                Quantity::Latency => {
                    let Some(priced) = tables.next() else { continue };
                    let (teacher, fixed) = (priced.table.teacher_ms(), priced.table.fixed_ms);
                    let reserve = priced.target.reserve(&self.config.latency);
                    (teacher, fixed, priced.limit_ms().unwrap_or(f64::INFINITY), reserve)
                }
                Quantity::Memory => continue,
                other => {
                    let (teacher, fixed) = match other {
                        Quantity::Params => (self.teacher.params as f64, outside.params as f64),
                        Quantity::Macs => (self.teacher.macs as f64, outside.macs as f64),
                        _ => {
                            self.check_footprints(limit)?;
                            let size = |f: &Footprint| f.size_bytes(precision) as f64 * size_error;
                            let fixed = size(&self.pool.outside);
                            (fixed + self.own().map(|o| size(&o.footprint)).sum::<f64>(), fixed)
                        }
                    };
                    (teacher, fixed, limit.amount.most(teacher, 1), 0.0)
                }
            };
            rows.push(Row { limit: limit.clone(), teacher, fixed, allowed, max: allowed * (1.0 - reserve) });
        }
        Ok(rows)
    }

    /// Operations whose region alone takes more memory than the budget allows, as rules that forbid them.
    fn too_much_memory(&self, layers: &[Layer]) -> Result<Vec<Members>> {
        let Some(limit) = self.budget.limit_on(Quantity::Memory) else { return Ok(Vec::new()) };
        self.check_footprints(limit)?;
        let precision = self.precision()?;
        let bytes = |footprint: &Footprint| footprint.memory_bytes(precision) as f64;
        let fixed = bytes(&self.pool.outside);
        let teacher = self.own().map(|o| bytes(&o.footprint)).fold(fixed, f64::max);
        let most = limit.amount.most(teacher, 1);
        let out_of_reach = |least: f64, why: String| Error::Infeasible {
            message: format!(
                "no selection meets {}: the smallest reachable {} is {}, {:.4}x of the teacher's {}; {why}",
                self.budget,
                Quantity::Memory.words(),
                Quantity::Memory.show(least),
                least / teacher,
                Quantity::Memory.show(teacher)
            ),
            hint: format!("{WIDEN}{}", self.rules_hint()),
        };
        // Of each layer the operation that takes least, and of all layers the one where that is most.
        let taken = |place: &PoolLayer, layer: &Layer| -> Vec<(String, f64)> {
            let there = place.operations.iter().filter(|o| layer.choices.iter().any(|c| c.name == o.name));
            there.map(|o| (o.name.clone(), bytes(&o.footprint))).collect()
        };
        let mut forbidden = Vec::new();
        let mut worst: Option<(&str, String, f64)> = None;
        for (place, layer) in self.pool.layers.iter().zip(layers) {
            let taken = taken(place, layer);
            let above: Vec<String> = taken.iter().filter(|t| t.1 > most).map(|t| t.0.clone()).collect();
            if let Some((name, least)) = taken.iter().min_by(|a, b| a.1.total_cmp(&b.1)).cloned()
                && worst.as_ref().is_none_or(|w| least > w.2)
            {
                worst = Some((&place.layer, name, least));
            }
            if !above.is_empty() {
                forbidden.push(Members { layers: vec![place.layer.clone()], choices: above });
            }
        }
        match worst {
            Some((layer, name, least)) if least > most && least > fixed => Err(out_of_reach(
                least,
                format!("layer `{layer}` binds: its smallest operation, `{name}`, takes that"),
            )),
            _ if fixed > most => {
                Err(out_of_reach(fixed, "what stands in no layer (stem, head) takes that".into()))
            }
            _ => Ok(forbidden),
        }
    }

    /// A pool.json of before there were footprints has none.
    fn check_footprints(&self, limit: &Limit) -> Result<()> {
        match self.pool.outside == Footprint::default() {
            true => Err(Error::input(
                format!(
                    "pool.json does not say yet what operations take in memory and on disk, which {limit} needs"
                ),
                "`lana profile RUN` writes it anew; what is measured stays",
            )),
            false => Ok(()),
        }
    }

    /// The teacher's own operations.
    fn own(&self) -> impl Iterator<Item = &crate::PoolOperation> {
        self.pool.layers.iter().filter_map(|layer| layer.operations.first())
    }

    /// Costs of what stands in no layer.
    fn outside(&self) -> Cost {
        let (params, macs) = self.own().fold((0, 0), |sum, o| (sum.0 + o.cost.params, sum.1 + o.cost.macs));
        Cost {
            params: self.teacher.params.saturating_sub(params),
            macs: self.teacher.macs.saturating_sub(macs),
        }
    }

    /// Costs of the whole network with a solution's operations.
    pub(crate) fn cost(&self, solution: &Solution) -> Cost {
        let outside = self.outside();
        let sum =
            |quantity: Quantity| solution.costs.get(quantity.cost_name()).map_or(0, |sum| sum.round() as u64);
        Cost { params: outside.params + sum(Quantity::Params), macs: outside.macs + sum(Quantity::Macs) }
    }

    /// What the whole network with a solution's operations takes in memory and on disk.
    pub(crate) fn footprint(&self, solution: &Solution) -> Footprint {
        let mut whole = self.pool.outside;
        for (place, choice) in self.pool.layers.iter().zip(&solution.choices) {
            let Some(chosen) = place.operations.iter().find(|o| o.name == *choice) else { continue };
            whole.peak_elements = whole.peak_elements.max(chosen.footprint.peak_elements);
            whole.weights += chosen.footprint.weights;
            whole.file_bytes += chosen.footprint.file_bytes;
        }
        whole
    }

    /// An error about a rule, in the words in which the rule was given.
    fn as_written(&self, error: lana_select::Error) -> Error {
        use lana_select::Error as E;
        if !matches!(
            error,
            E::UnmatchedLayer { .. }
                | E::UnmatchedChoice { .. }
                | E::Contradiction { .. }
                | E::CrossedCap { .. }
                | E::CapTooHigh { .. }
        ) {
            return error.into();
        }
        let select = &self.config.select;
        let mut message = error.to_string();
        for (field, name, rules) in
            [("forbidden", "exclude", &select.exclude), ("forced", "force", &select.force)]
        {
            for (index, rule) in rules.iter().enumerate() {
                message = message.replace(&format!("`{field}[{index}]`"), &format!("{name} `{rule}`"));
            }
        }
        // Behind the rules stand operations that a limit on memory forbids.
        if let (Some(limit), Some(at)) = (self.budget.limit_on(Quantity::Memory), message.find("`forbidden["))
        {
            let end = message[at + 1..].find('`').map_or(message.len(), |end| at + end + 2);
            message.replace_range(at..end, &format!("the budget {limit}"));
        }
        Error::input(
            message,
            "pool.json in the run lists layers and operations; rules stand under [select] in run.toml",
        )
    }

    /// The message for a budget out of reach, in whole-network terms and the user's words.
    pub(crate) fn infeasible(&self, problem: &Problem, outcome: &Outcome, tables: &[Priced]) -> Error {
        let budget = self.budget;
        let rows = self.rows(tables, 1.0).unwrap_or_default();
        let row = |name: &str| rows.iter().find(|row| row.limit.cost_name() == name);
        let found = outcome.infeasible.as_ref();
        let binding = found.filter(|i| i.kind == LimitKind::Budget).and_then(|i| Some((i, row(&i.budget)?)));
        let message = match (binding, found) {
            (Some((i, row)), _) => {
                let quantity = row.limit.quantity;
                let show = |amount: f64| quantity.show(amount);
                let own = i.reachable.or_else(|| problem.smallest_reachable(&i.budget).ok());
                let least = own.map(|own| own + row.fixed);
                let mut message = match rows.len() {
                    1 => format!("no selection meets {budget}"),
                    _ => format!("no selection meets {} of the budget {budget}", row.limit),
                };
                if row.max < row.allowed {
                    message += &format!(" (with {:.1} % in reserve)", 100.0 * (1.0 - row.max / row.allowed));
                }
                let others: Vec<String> = i.together_with.iter().map(|name| as_asked(name, &rows)).collect();
                if !others.is_empty() {
                    message += &format!(" together with {}", others.join(" and "));
                }
                message += &format!(": the smallest reachable {}", quantity.words());
                if let Some(label) = &row.limit.deployment {
                    message += &format!(" on {label}");
                }
                if let Some(least) = least {
                    let share = least / row.teacher;
                    message +=
                        &format!(" is {}, {share:.4}x of the teacher's {}", show(least), show(row.teacher));
                } else {
                    message += " is not known";
                }
                message += &format!(
                    "; layer `{}` binds: its cheapest operation, `{}`, takes {}; {} are outside of all layers",
                    i.layer,
                    i.choice,
                    show(i.layer_cost),
                    show(row.fixed)
                );
                message
            }
            (None, Some(i)) => {
                let others: Vec<String> = i.together_with.iter().map(|name| as_asked(name, &rows)).collect();
                let words = match others.is_empty() {
                    true => i.message.clone(),
                    false => format!("cap `{}` together with {}", i.budget, others.join(" and ")),
                };
                format!("no selection meets {budget}: {words}")
            }
            (None, None) => format!("no selection meets {budget}"),
        };
        Error::Infeasible { message, hint: format!("{WIDEN}{}", self.rules_hint()) }
    }

    fn rules_hint(&self) -> &'static str {
        let select = &self.config.select;
        match select.exclude.is_empty() && select.force.is_empty() && select.caps.is_empty() {
            true => "",
            false => ", or relax the rules (--exclude, --force, --cap; '' for none)",
        }
    }
}

const WIDEN: &str = "ask for a larger budget, or widen the pool with faster operations (--pool)";

/// A row or cap as the user wrote it.
fn as_asked(name: &str, rows: &[Row]) -> String {
    let row = rows.iter().find(|row| row.limit.cost_name() == name);
    row.map_or_else(|| format!("cap `{name}`"), |row| row.limit.to_string())
}

/// The median standard error of the scores.
fn standard_error(scores: &Scores, by_kl: bool) -> f64 {
    let all = scores.layers.values().flat_map(BTreeMap::values);
    let mut errors: Vec<f64> = all
        .map(|score| if by_kl { score.kl.stderr } else { score.loss.stderr })
        .filter(|e| e.is_finite())
        .collect();
    errors.sort_by(f64::total_cmp);
    errors.get(errors.len() / 2).copied().unwrap_or(0.0)
}

/// Whether patterns of layers and operations fit these.
fn is_asked(asked: &[(Vec<String>, Vec<String>)], layer: &str, choice: &str) -> bool {
    let any = |patterns: &[String], name: &str| patterns.iter().any(|pattern| fits(pattern, name));
    asked.iter().any(|(layers, choices)| any(layers, layer) && any(choices, choice))
}

/// Share of its layer's multiply-accumulates that an operation has; none for what is as wide as the teacher: its own layer, some of
/// the blocks of one, be it side by side, and the identity, which replaces nothing.
fn share(place: &PoolLayer, operation: &str) -> Option<f64> {
    let macs = |name: &str| place.operations.iter().find(|o| o.name == name).map(|o| o.cost.macs as f64);
    let is_wide = [Operation::IDENTITY, Operation::TEACHER].contains(&operation)
        || [Operation::DEPTH, Operation::WIDE].iter().any(|family| operation.starts_with(family));
    Some(macs(operation).filter(|_| !is_wide)? / macs(Operation::TEACHER)?)
}

/// What a selection depends on besides the run's trainings.
pub(crate) fn settings(config: &Config) -> String {
    let select = &config.select;
    let mut text = search_settings(config);
    if select.finalists > 1 && select.finalist_images > 0 {
        text += &format!(", {} finalists of a floor on {} images", select.finalists, select.finalist_images);
    }
    text
}

/// What the search for it depends on.
pub(crate) fn search_settings(config: &Config) -> String {
    let (select, latency) = (&config.select, &config.latency);
    let mut text = format!(
        "{} by {}, margin {}, K {}, overlap {}, gap {}, rounds {}",
        tables::name(latency),
        config.score.by,
        latency.margin,
        select.solutions,
        select.max_overlap,
        select.gap,
        select.rounds,
    );
    if select.floors != [0.0] {
        text += &format!(", floors {:?}, finalists on {} images", select.floors, select.finalist_images);
    }
    for (name, rules) in [("exclude", &select.exclude), ("force", &select.force), ("caps", &select.caps)] {
        if !rules.is_empty() {
            text += &format!(", {name} {}", rules.join("; "));
        }
    }
    text
}

/// Share of the layers in which a selection near another one may differ from it.
const NEAR: f64 = 0.2;

/// Solves a problem for what is to be examined next: K diverse solutions; or, with a best selection so far, half as many, and
/// as many that differ from it in a few layers only and from all that is examined in at least one.
pub(crate) fn propose(
    problem: &Problem,
    best: Option<&Candidate>,
    seen: &[Candidate],
) -> Result<(Outcome, Vec<Solution>)> {
    let Some(best) = best else {
        let outcome = lana_select::solve(problem)?;
        let solutions = outcome.solutions.clone();
        return Ok((outcome, solutions));
    };
    let near_count = problem.solutions / 2;
    let outcome =
        lana_select::solve(&Problem { solutions: problem.solutions - near_count, ..problem.clone() })?;
    let mut solutions = outcome.solutions.clone();
    if near_count == 0 {
        return Ok((outcome, solutions));
    }
    let earlier = seen.iter().map(|c| &c.choices).chain(solutions.iter().map(|s| &s.choices));
    let most = (NEAR * problem.layers.len() as f64).round().max(2.0) as usize;
    let earlier: Vec<Vec<String>> = earlier.cloned().collect();
    let near = Problem { solutions: near_count, ..near(problem, &best.choices, most, &earlier) };
    solutions.extend(lana_select::solve(&near)?.solutions.into_iter().map(|mut solution| {
        solution.costs.remove(CHANGES);
        solution
    }));
    Ok((outcome, solutions))
}

/// The problem of selections that differ from `best` in `most` layers at most, and from all of `earlier` in at least one.
pub(crate) fn near(problem: &Problem, best: &[String], most: usize, earlier: &[Vec<String>]) -> Problem {
    let mut near = Problem { max_overlap: 1.0, ..problem.clone() };
    let known = |names: &&Vec<String>| {
        names.len() == near.layers.len()
            && names
                .iter()
                .zip(&near.layers)
                .all(|(name, layer)| layer.choices.iter().any(|c| c.name == *name))
    };
    near.earlier = earlier.iter().filter(known).cloned().collect();
    for (layer, name) in near.layers.iter_mut().zip(best) {
        for choice in &mut layer.choices {
            choice.costs.insert(CHANGES.into(), f64::from(u8::from(choice.name != *name)));
        }
    }
    near.budgets.insert(CHANGES.into(), lana_select::Budget { min: None, max: Some(most as f64) });
    near
}

/// The cost that counts in how many layers a selection differs from another.
const CHANGES: &str = "changes";

#[cfg(test)]
mod tests {
    use lana_select::Status;

    use super::*;
    use crate::sample;

    const LAYERS: usize = 8;

    fn solve(budget: &str, config: &Config) -> Result<(Program<'static>, Solution)> {
        // Leaked: a few bytes for a test, and programs that can be handed about.
        let (config, budget) = (Box::leak(Box::new(config.clone())), Box::leak(Box::new(budget.parse()?)));
        let pool = Box::leak(Box::new(sample::pool(LAYERS)));
        let program = Program::new(config, budget, pool, sample::cost(LAYERS));
        let deployments = budget.deployments(&config.latency.deployment())?;
        let tables: Vec<Priced> = deployments
            .into_iter()
            .map(|(deployment, amount)| sample::priced(LAYERS, deployment, amount, deployment.batch as f64))
            .collect();
        let program = program.above(config.select.floors[0]);
        let problem = program.problem(Some(&sample::scores(LAYERS)), &tables, 1.0)?;
        let problem = Problem { solutions: 1, gap: 0.0, ..problem };
        let outcome = lana_select::solve(&problem)?;
        match outcome.status {
            Status::Infeasible => Err(program.infeasible(&problem, &outcome, &tables)),
            _ => Ok((program, outcome.solutions.into_iter().next().unwrap())),
        }
    }

    fn config() -> Config {
        let mut config = Config::default();
        config.latency.margin = 0.0;
        config.select.floors = vec![0.0];
        config
    }

    #[test]
    fn operations_below_the_floor_are_left_out() {
        let thin = |solution: &Solution| {
            solution.choices.iter().filter(|choice| ["quarter", "eighth"].contains(&choice.as_str())).count()
        };
        let mut config = config();
        let (program, free) = solve("0.4x", &config).unwrap();
        assert!(thin(&free) > 0 && program.thinnest(&free.choices) < 0.4, "{:?}", free.choices);
        config.select.floors = vec![0.4];
        let (program, wide) = solve("0.4x", &config).unwrap();
        assert!(thin(&wide) == 0 && wide.score > free.score, "{:?}", wide.choices);
        assert!(program.thinnest(&wide.choices) >= 0.4);
        // At the top the teacher's own layers, identities and what has more are left.
        config.select.floors = vec![1.0];
        let (program, skipped) = solve("0.4x", &config).unwrap();
        let left = ["teacher", "identity", "wide"];
        assert!(
            skipped.choices.iter().all(|choice| left.contains(&choice.as_str())),
            "{:?}",
            skipped.choices
        );
        assert!(skipped.score >= wide.score && program.thinnest(&skipped.choices) == 1.0);
        // What the user asks for by name may stand there.
        config.select.floors = vec![0.4];
        config.select.force = vec!["stage1.0:quarter".into()];
        let (program, forced) = solve("0.4x", &config).unwrap();
        assert!(forced.choices[0] == "quarter" && thin(&forced) == 1, "{:?}", forced.choices);
        assert!(program.thinnest(&forced.choices) >= 0.4);
        config.select.force.clear();
        // A floor that leaves a layer nothing is out of reach, not a contradiction in rules that the user did not write.
        config.select.exclude = vec!["stage1.0:teacher,identity,wide".into()];
        config.select.floors = vec![1.0];
        let error = solve("0.4x", &config).err().unwrap();
        assert!(
            matches!(error, Error::Infeasible { .. }) && error.to_string().contains("stage1.0"),
            "{error}"
        );
        assert!(error.hint().unwrap().contains("select.floors"));
        config.select.exclude.clear();
        config.select.floors = vec![0.4];
        config.select.caps = vec!["*:eighth>=2".into()];
        let (_, capped) = solve("0.4x", &config).unwrap();
        assert!(thin(&capped) >= 2 && !capped.choices.contains(&"quarter".into()), "{:?}", capped.choices);
        config.select.caps.clear();
        for floors in [vec![0.0, 1.5], Vec::new(), vec![f64::NAN]] {
            config.select.floors = floors;
            for field in [&mut config.teacher, &mut config.train, &mut config.val] {
                *field = "given".into();
            }
            assert!(config.validate().unwrap_err().to_string().contains("select.floors"));
        }
    }

    /// Latency as a share of the teacher's.
    fn share(solution: &Solution) -> f64 {
        let ms =
            |choice: &String| sample::OPERATIONS.iter().find(|o| o.0 == choice).unwrap().1 * sample::LAYER_MS;
        let sum: f64 = solution.choices.iter().map(ms).sum::<f64>() + sample::FIXED_MS;
        sum / (LAYERS as f64 * sample::LAYER_MS + sample::FIXED_MS)
    }

    #[test]
    fn every_quantity_is_a_row() {
        let teacher = sample::cost(LAYERS);
        for (budget, within) in [
            ("0.5x", 0.5),
            ("8.5ms", 0.5),
            (">=100img/s", 10.0 / 17.0),
            ("cpu-b64:0.4x", 0.4),
            // A batch of 64 takes 64 times as long here: 64 * 8.5 ms.
            ("cpu-b64:544ms", 0.5),
            ("cpu-b64:>=200img/s", 5.0 / 17.0),
            ("cpu-b1:0.6x,cpu-b64:0.3x", 0.3),
        ] {
            let (_, solution) = solve(budget, &config()).unwrap();
            let share = share(&solution);
            assert!(share <= within + 1e-9 && share > within - 0.08, "{budget}: {share}");
        }
        for (budget, most) in [("params=0.5x", 0.5), ("params=3k", 1.0 / 3.0), ("macs=45k", 0.5)] {
            let (program, solution) = solve(budget, &config()).unwrap();
            let share = program.cost(&solution).params as f64 / teacher.params as f64;
            assert!(share <= most && share > most - 0.1, "{budget}: {share}");
        }
        let whole = (4 * teacher.params + 100 * LAYERS as u64 + 500) as f64;
        for (budget, most) in [("size=0.5x", 0.5), ("size=20kB", 20_000.0 / whole)] {
            let (program, solution) = solve(budget, &config()).unwrap();
            let share = program.footprint(&solution).size_bytes(Precision::Fp32) as f64 / whole;
            assert!(share <= most && share > most - 0.1, "{budget}: {share}");
        }
    }

    #[test]
    fn limits_on_several_quantities_hold_together() {
        let (program, solution) = solve("0.6x,params=0.45x,memory=0.9x,size=0.6x", &config()).unwrap();
        assert!(share(&solution) <= 0.6);
        let teacher = sample::cost(LAYERS);
        assert!(program.cost(&solution).params as f64 <= 0.45 * teacher.params as f64);
        assert!(
            program.footprint(&solution).memory_bytes(Precision::Fp32) as f64
                <= 0.9 * 4.0 * sample::ELEMENTS as f64
        );
    }

    #[test]
    fn memory_forbids_operations_whose_region_is_above_it() {
        // Half of the first layer's 40 kB: its own takes 1, the smallest with anything in it 0.6 of that.
        let (program, solution) = solve("memory=0.5x,0.99x", &config()).unwrap();
        assert_eq!(solution.choices[0], "identity");
        assert!(program.footprint(&solution).memory_bytes(Precision::Fp32) <= 20_000);
        // The wider operation takes twice the memory of its layer: from the fourth layer on that is allowed.
        let (_, solution) = solve("memory=20kB,params=1.3x", &config()).unwrap();
        assert_eq!(solution.choices[0], "identity");

        let error = solve("memory=10kB", &config()).unwrap_err();
        assert_eq!(error.exit_status(), 3);
        let message = error.to_string();
        assert!(
            message.contains("no selection meets memory=10kB") && message.contains("stands in no layer"),
            "{message}"
        );
        assert!(message.contains("12kB") && message.contains("40kB"), "{message}");

        let mut config = config();
        config.select.exclude = vec!["stage1.0:identity".into()];
        let error = solve("memory=0.5x", &config).unwrap_err();
        assert_eq!(error.exit_status(), 2, "{error}");
        assert!(error.to_string().contains("memory=0.5x"), "{error}");
    }

    #[test]
    fn what_cannot_be_met_is_said_in_the_words_of_the_budget() {
        for (budget, words) in [
            (
                "0.05x",
                &[
                    "no selection meets 0.05x",
                    "smallest reachable latency is 1 ms, 0.0588x of the teacher's 17 ms",
                ][..],
            ),
            (
                "params=900",
                &["no selection meets params=900", "number of parameters is 1k", "teacher's 9k"][..],
            ),
            ("size=0.1x", &["no selection meets size=0.1x", "size of the file is 5.3kB", "binds"][..]),
            (
                "cpu-b1:0.5x,cpu-b64:0.01x",
                &["meets cpu-b64:0.01x of the budget", "smallest reachable latency on cpu-b64 is 64 ms"][..],
            ),
            (">=2000img/s", &["no selection meets >=2000img/s", "latency is 1 ms"][..]),
        ] {
            let error = solve(budget, &config()).unwrap_err();
            assert_eq!(error.exit_status(), 3, "{budget}: {error}");
            for word in words {
                assert!(error.to_string().contains(word), "{budget}: `{word}` is not in: {error}");
            }
        }
        // Each can be met, both together cannot: so little latency takes skipping, which is capped.
        let mut config = config();
        config.select.caps = vec!["*:identity<=0".into()];
        let error = solve("0.25x,params=0.3x", &config).unwrap_err();
        assert!(error.to_string().contains("cap `*:identity<=0` together with 0.25x"), "{error}");
        assert!(error.hint().unwrap().contains("--cap"), "{error}");
    }

    #[test]
    fn a_pool_from_before_says_what_to_do() {
        let config = config();
        let budget: Budget = "size=0.5x".parse().unwrap();
        let mut pool = sample::pool(LAYERS);
        pool.outside = Footprint::default();
        let program = Program::new(&config, &budget, &pool, sample::cost(LAYERS));
        let table = sample::priced(LAYERS, Deployment::default(), None, 1.0);
        let error = program.problem(None, &[table], 1.0).unwrap_err();
        assert!(error.hint().unwrap().contains("lana profile"), "{error}");
    }
}
