/**
 * Jobs on one machine under several policies: each run long enough to settle, where its time went,
 * and which one change of the machine would help most.
 *
 *     const comparison = comparePolicies({ jobs, machine, policies, seed: 1 });
 *     comparison[0].result.requests; // steady at 40 958 a second
 *     comparison[0].best?.what; // "twice the disk's bandwidth"
 */
import type { Policy } from "../../dma/policy.ts";
import { StackError } from "../../errors.ts";
import { PAGE_BYTES, pagesOf } from "../../units.ts";
import type { FioJob } from "./fio-job.ts";
import { type FioMachine, type FioResult, runFio } from "./fio-run.ts";
import { type Relaxation, relaxationsOf, withoutTranslation } from "./relaxations.ts";
import { type Slice, SliceRecorder } from "./slices.ts";

/** Requests in flight of all processes together. */
export const IN_FLIGHT_MAX = 65_535;
/** Bytes of one request: what a kernel leaves in one piece. */
export const REQUEST_BYTES_MAX = 2 * 2 ** 20;
/** Pages of all buffers; a guest of 16 GiB holds them, however scattered. */
const BUFFER_PAGES_MAX = 2 ** 20;

const WINDOWS = 200;
/** Requests after which most runs have settled; a run that has not is doubled so many times. */
const REQUESTS = 16_000;
const EXTENSIONS = 3;
/** The same for a changed machine, at the speed of the machine as it is. */
const REQUESTS_CHANGED = 5000;
const CHANGES = 5;
const PILOT_REQUESTS = 200;
const PILOT_EVENTS = 40_000;
/** What is in flight at the start comes in a burst: so many rounds of it are run at least. */
const ROUNDS = 3;
/** Events of a request, generously. */
const EVENTS_EACH = 40;
/** A run that would have more events is not doubled, so that an answer takes minutes at most. */
const EVENTS_MAX = 6_000_000;
const PS_PER_SECOND = 1e12;
const TIME_MAX_PS = 3600 * PS_PER_SECOND;
/** Windows of a run that a timeline shows, behind the warm-up. */
const TIMELINE_FROM = 20;
const TIMELINE_UNTIL = 22;
/** A mean that is less sure than this share of it is none. */
const HALF_WIDTH_MAX = 0.1;
/** A gain that nobody would act upon. */
const GAIN_MIN = 0.01;

/** What to compare. */
export interface ComparisonOptions {
  /** Jobs that run side by side. */
  readonly jobs: readonly FioJob[];
  readonly machine: FioMachine;
  readonly policies: readonly Policy[];
  readonly seed: number;
  /** CPUs that processes run on; all when absent. */
  readonly cpus?: readonly number[];
  /** Virtual time of each run, picoseconds; as long as needed when absent. */
  readonly timePs?: number;
  /** Told what is run next. */
  readonly progress?: (what: string) => void;
}

/** What a change of the machine gives. */
export interface ChangeResult {
  readonly id: string;
  readonly what: string;
  readonly isTranslation: boolean;
  /** Null when that run did not settle. */
  readonly requestsPerSecond: number | null;
  /** Relative to the machine as it is: 0.5 is half as fast again. */
  readonly gain: number | null;
}

/** One policy's run. */
export interface PolicyOutcome {
  readonly policy: Policy;
  readonly result: FioResult;
  /** Length of a window of the run, picoseconds. */
  readonly windowPs: number;
  /** How often the run was doubled because it had not settled. */
  readonly extensions: number;
  /** What all of translation costs: the gain if it were free. Null without a steady state. */
  readonly translationGain: number | null;
  /** Changes that were tried, the one that helps most first. */
  readonly changes: readonly ChangeResult[];
  /** The one change that would help most; null when none helps that was tried. */
  readonly best: ChangeResult | null;
}

/** Runs the jobs under each policy. @throws StackError `sim/…` for what no machine here can take */
export function comparePolicies(options: ComparisonOptions): readonly PolicyOutcome[] {
  checkLoad(options.jobs);
  return options.policies.map((policy) => new PolicyComparison(options, policy).run());
}

/** Who held what under a policy, in a short window of a run as long as the one that was judged. */
export function timelineOf(options: ComparisonOptions, outcome: PolicyOutcome): readonly Slice[] {
  const { jobs, machine, seed, cpus } = options;
  const { policy, windowPs } = outcome;
  const slices = new SliceRecorder(TIMELINE_FROM * windowPs, TIMELINE_UNTIL * windowPs);
  const some = cpus === undefined ? {} : { cpus };
  const run = { jobs, machine, policy, seed, windowPs, slices, ...some };
  // What began in the window may end a while after it.
  runFio({ ...run, windows: TIMELINE_UNTIL * 2, eventsMax: EVENTS_MAX });
  return slices.slices;
}

/** Bounds what a run keeps in memory, however large the file's numbers are. */
function checkLoad(jobs: readonly FioJob[]): void {
  let inFlight = 0;
  let pages = 0;
  for (const job of jobs) {
    const blocks = [...job.readBlocks, ...job.writeBlocks].map(({ bytes }) => bytes);
    const largest = Math.max(...blocks);
    inFlight += job.processes * job.depth;
    pages += job.processes * job.depth * pagesOf(largest);
    const hint = "ask for fewer processes, less depth or smaller blocks";
    const refuse = (code: `sim/${string}`, message: string) =>
      new StackError({ code, kind: "input", message, at: job.at, hint });
    if (largest > REQUEST_BYTES_MAX) {
      throw refuse(
        "sim/large-request",
        `The job ${job.name} has requests of ${largest} bytes; a kernel splits what is larger ` +
          `than ${REQUEST_BYTES_MAX}`,
      );
    }
    if (inFlight > IN_FLIGHT_MAX) {
      throw refuse("sim/in-flight", `More than ${IN_FLIGHT_MAX} requests are in flight at once`);
    }
    if (pages > BUFFER_PAGES_MAX) {
      const most = (BUFFER_PAGES_MAX * PAGE_BYTES) / 2 ** 30;
      throw refuse("sim/buffers", `The buffers of all jobs have more than ${most} GiB`);
    }
  }
}

class PolicyComparison {
  readonly #options: ComparisonOptions;
  readonly #policy: Policy;
  readonly #inFlight: number;

  constructor(options: ComparisonOptions, policy: Policy) {
    this.#options = options;
    this.#policy = policy;
    this.#inFlight = options.jobs.reduce((sum, job) => sum + job.processes * job.depth, 0);
  }

  run(): PolicyOutcome {
    const { machine, timePs } = this.#options;
    this.#progress("");
    const fixed = timePs === undefined ? null : Math.max(1, Math.ceil(timePs / WINDOWS));
    const windowPs = fixed ?? this.#windowFor(machine);
    const settled = this.#settle(machine, windowPs, fixed === null ? EXTENSIONS : 0);
    const outcome = { policy: this.#policy, ...settled };
    return { ...outcome, ...this.#changes(settled.result, settled.windowPs) };
  }

  /** Runs, and doubles the run until it settles, so many times at most. */
  #settle(
    machine: FioMachine,
    startPs: number,
    extensionsMax: number,
  ): Pick<PolicyOutcome, "result" | "windowPs" | "extensions"> {
    let windowPs = startPs;
    for (let extensions = 0; ; extensions += 1) {
      const result = this.#run(machine, windowPs);
      const canGrow = windowPs * 2 * WINDOWS <= TIME_MAX_PS && result.events * 2 <= EVENTS_MAX;
      if (result.requests.kind === "steady" || extensions >= extensionsMax || !canGrow) {
        return { result, windowPs, extensions };
      }
      windowPs *= 2;
    }
  }

  #changes(
    result: FioResult,
    windowPs: number,
  ): Pick<PolicyOutcome, "translationGain" | "changes" | "best"> {
    const { machine } = this.#options;
    // A changed machine is faster, and needs no percentiles.
    const shorter = Math.ceil((windowPs * REQUESTS_CHANGED) / REQUESTS);
    const { requests } = result;
    if (requests.kind !== "steady") return { translationGain: null, changes: [], best: null };
    const isTranslated = result.where.parts.some(({ name }) =>
      machine.prices.prices.some(({ step }) => step === name),
    );
    const free = isTranslated
      ? this.#try(withoutTranslation(machine), requests.mean, shorter)
      : null;
    const changes = relaxationsOf(machine, result.where, CHANGES)
      .map((relaxation) => this.#try(relaxation, requests.mean, shorter))
      .sort((a, b) => (b.gain ?? -1) - (a.gain ?? -1) || (a.id < b.id ? -1 : 1));
    const [first] = changes;
    const noise = Math.max(GAIN_MIN, (2 * requests.halfWidth95) / requests.mean);
    const best = first !== undefined && (first.gain ?? 0) > noise ? first : null;
    return { translationGain: isTranslated ? (free?.gain ?? null) : 0, changes, best };
  }

  #try(relaxation: Relaxation, base: number, windowPs: number): ChangeResult {
    const { id, what, isTranslation, machine } = relaxation;
    this.#progress(`, with ${what}`);
    const { requests } = this.#settle(machine, windowPs, EXTENSIONS).result;
    const requestsPerSecond = requests.kind === "steady" ? requests.mean : null;
    const gain = requestsPerSecond === null ? null : requestsPerSecond / base - 1;
    return { id, what, isTranslation, requestsPerSecond, gain };
  }

  /** The window in which enough requests complete during a run. */
  #windowFor(machine: FioMachine): number {
    const events = PILOT_EVENTS + this.#inFlight * EVENTS_EACH;
    const requests = Math.max(REQUESTS, this.#inFlight * ROUNDS);
    let windowPs = 1e8;
    for (;;) {
      const { completed, time } = this.#simulate(machine, windowPs, events);
      const isLast = windowPs * 8 * WINDOWS > TIME_MAX_PS;
      if (completed < PILOT_REQUESTS && !isLast && time >= windowPs * WINDOWS) {
        windowPs *= 8;
        continue;
      }
      const wanted = Math.ceil((time * requests) / Math.max(1, completed) / WINDOWS);
      return Math.min(Math.max(1, wanted), Math.floor(TIME_MAX_PS / WINDOWS));
    }
  }

  #run(machine: FioMachine, windowPs: number): FioResult {
    const isFixed = this.#options.timePs !== undefined;
    const eventsMax = isFixed ? Number.POSITIVE_INFINITY : EVENTS_MAX;
    const result = this.#simulate(machine, windowPs, eventsMax);
    const { events, completed } = result;
    // A run that was cut, or in which next to nothing happened, has no mean.
    const unsettled = (reason: "too-short" | "too-noisy") => {
      const requests = { kind: "unsettled", reason, observations: completed } as const;
      return { ...result, requests };
    };
    if (events >= eventsMax || completed < PILOT_REQUESTS / 2) return unsettled("too-short");
    const { requests } = result;
    const isNoisy =
      requests.kind === "steady" && requests.halfWidth95 > HALF_WIDTH_MAX * requests.mean;
    return isNoisy ? unsettled("too-noisy") : result;
  }

  #simulate(machine: FioMachine, windowPs: number, eventsMax: number): FioResult {
    const { jobs, seed, cpus } = this.#options;
    const some = cpus === undefined ? {} : { cpus };
    const run = { jobs, machine, policy: this.#policy, seed, windows: WINDOWS, windowPs };
    return runFio({ ...run, eventsMax, ...some });
  }

  #progress(more: string): void {
    this.#options.progress?.(`${this.#policy.name}${more}`);
  }
}
