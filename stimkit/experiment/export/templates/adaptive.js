// Adaptive methods over the steps of a series: which step comes next, and what the answers say so far.
//
// A staircase goes as `psychopy.data.StairHandler` does, so that both exports are the same experiment: until the first
// reversal it moves after every answer; then down after `down` lowering answers in a row, up after `up` others.
// QUEST+ (Watson 2017) shows the step of which the answer is expected to leave the least entropy, with a Weibull function
// p = 1 − λ − (1 − γ − λ) exp(−(x / threshold)^slope), and the exponent 10^(slope (x − threshold)) of logarithms x.

class Staircase {
  constructor(levels, { up, down, steps, start }) {
    Object.assign(this, { levels, up, down, steps });
    const distances = levels.map((level) => Math.abs(level - (start ?? levels.at(-1))));
    this.at = distances.indexOf(Math.min(...distances));
    this.answers = [];
    this.run = 0; // lowering answers in a row, or others as negative numbers
    this.direction = "start";
    this.reversals = [];
  }

  get next() {
    return this.at;
  }

  learn(at, lowers) {
    const same = this.answers.at(-1) === lowers;
    this.answers.push(lowers);
    this.run = (same ? this.run : 0) + (lowers ? 1 : -1);
    const initial = this.reversals.length === 0;
    const wanted = initial ? (lowers ? "down" : "up") : this.run >= this.down ? "down" : this.run <= -this.up ? "up" : null;
    if (wanted === null) {
      return;
    }
    if (this.direction !== "start" && this.direction !== wanted) {
      this.reversals.push(at);
    }
    this.direction = wanted;
    const step = this.steps[Math.min(this.reversals.length, this.steps.length - 1)];
    this.at = Math.min(this.levels.length - 1, Math.max(0, at + (wanted === "down" ? -step : step)));
    this.run = 0;
  }

  // The mean level at reversals, without the first two.
  get estimate() {
    const used = this.reversals.slice(2).map((at) => this.levels[at]);
    return used.length ? used.reduce((sum, level) => sum + level) / used.length : null;
  }
}

class QuestPlus {
  constructor(levels, { slopes, lapses, guess, scale }) {
    this.x = scale === "log10" ? levels.map(Math.log10) : levels;
    this.scale = scale;
    const thresholds = scale === "log10" ? this.x : this.x.filter((x) => x > 0);
    this.grid = thresholds.flatMap((threshold) => slopes.flatMap((slope) => lapses.map((lapse) => ({ threshold, slope, lapse }))));
    this.p = this.x.map((x) => this.grid.map(({ threshold, slope, lapse }) => {
      const power = scale === "log10" ? 10 ** (slope * (x - threshold)) : (x / threshold) ** slope;
      return 1 - lapse - (1 - guess - lapse) * Math.exp(-power);
    }));
    this.belief = this.grid.map(() => 1 / this.grid.length);
  }

  get next() {
    const entropies = this.p.map((likelihood) => [true, false].reduce((sum, lowers) => {
      const [belief, chance] = this.after(likelihood, lowers);
      return sum - chance * belief.reduce((total, one) => total + (one > 0 ? one * Math.log(one) : 0), 0);
    }, 0));
    return entropies.indexOf(Math.min(...entropies));
  }

  // What would be believed after an answer, and how likely that is.
  after(likelihood, lowers) {
    const weights = this.belief.map((one, index) => one * (lowers ? likelihood[index] : 1 - likelihood[index]));
    const chance = weights.reduce((sum, one) => sum + one, 0);
    return [weights.map((one) => (chance > 0 ? one / chance : 0)), chance];
  }

  learn(at, lowers) {
    [this.belief] = this.after(this.p[at], lowers);
  }

  // The mean threshold.
  get estimate() {
    const mean = this.belief.reduce((sum, one, index) => sum + one * this.grid[index].threshold, 0);
    return this.scale === "log10" ? 10 ** mean : mean;
  }
}

export function makeMethod(levels, settings) {
  return settings.method === "staircase" ? new Staircase(levels, settings) : new QuestPlus(levels, settings);
}
