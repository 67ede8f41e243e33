/**
 * A controller's state as plain data, and the checks it goes through when it is taken over: it may
 * come from a file, from another version, or from a process that died.
 */
import { StackError } from "../errors.ts";
import type { EventState } from "./events.ts";
import type { FeatureState } from "./features.ts";
import type { Health } from "./logs.ts";
import { ADMIN_ENTRIES_MAX, QUEUE_ENTRIES_MAX } from "./protocol.ts";
import type { CompletionPlace, SubmissionPlace } from "./queues.ts";

/** Registers that a driver writes, and the status. */
export interface RegisterState {
  readonly cc: number;
  readonly csts: number;
  readonly mask: number;
  readonly aqa: number;
  /** ASQ and ACQ as halves, low first. */
  readonly asq: readonly number[];
  readonly acq: readonly number[];
}

/**
 * The last admin command that changed the state, which may have been kept when its completion was
 * not yet: when it is met at the queue's head again, it is only completed.
 */
export interface Outcome {
  readonly count: number;
  /** First word of its entry. */
  readonly head: number;
  readonly status: number;
  readonly result: number;
}

/** What a controller saves. */
export interface NvmeState {
  readonly version: 1;
  readonly registers: RegisterState;
  /** Whether CC.EN was set and the store is not yet quiet. */
  readonly isStarting: boolean;
  readonly completions: readonly CompletionPlace[];
  readonly submissions: readonly SubmissionPlace[];
  readonly features: FeatureState;
  readonly events: EventState;
  readonly health: Health;
  readonly errorCount: number;
  readonly outcome: Outcome | null;
  /** The journal's words; absent where the journal has them. */
  readonly words?: readonly number[];
}

type Plain = Readonly<Record<string, unknown>>;

function refuse(what: string): never {
  throw new StackError({
    code: "pci/state",
    kind: "input",
    message: `a saved NVMe controller has no sensible ${what}`,
    hint: "take over the state only into a controller with the same settings",
  });
}

function object(value: unknown, what: string): Plain {
  if (typeof value !== "object" || value === null || Array.isArray(value)) refuse(what);
  return value as Plain;
}

function array(value: unknown, countMax: number, what: string): readonly unknown[] {
  if (!Array.isArray(value) || value.length > countMax) refuse(what);
  return value;
}

/** An integer `first` … `last`. */
function integer(value: unknown, last: number, what: string, first = 0): number {
  if (typeof value !== "number" || !Number.isInteger(value)) refuse(what);
  if (value < first || value > last) refuse(what);
  return value;
}

function flag(value: unknown, what: string): boolean {
  if (typeof value !== "boolean") refuse(what);
  return value;
}

const WORD = 0xffff_ffff;
const words = (value: unknown, count: number, what: string): number[] => {
  const found = array(value, count, what);
  if (found.length !== count) refuse(what);
  return found.map((word) => integer(word, WORD, what));
};

function pairs(value: unknown, what: string): (readonly [number, number])[] {
  return array(value, 64, what).map((pair) => {
    const [first, second] = words(pair, 2, what);
    return [first!, second!] as const;
  });
}

function place(value: unknown, queues: number) {
  const plain = object(value, "queue");
  const id = integer(plain.id, queues, "queue identifier");
  return {
    plain,
    id,
    address: integer(plain.address, Number.MAX_SAFE_INTEGER, "queue address", -1),
    size: integer(plain.size, id === 0 ? ADMIN_ENTRIES_MAX : QUEUE_ENTRIES_MAX, "queue size", 2),
  };
}

function registersOf(value: unknown): RegisterState {
  const plain = object(value, "registers");
  return {
    cc: integer(plain.cc, WORD, "CC"),
    csts: integer(plain.csts, 15, "CSTS"),
    mask: integer(plain.mask, WORD, "INTMS"),
    aqa: integer(plain.aqa, WORD, "AQA"),
    asq: words(plain.asq, 2, "ASQ"),
    acq: words(plain.acq, 2, "ACQ"),
  };
}

function queuesOf(plain: Plain, queues: number) {
  const completions = array(plain.completions, queues + 1, "completion queues").map((value) => {
    const { plain: queue, id, address, size } = place(value, queues);
    return { id, address, size, vector: integer(queue.vector, queues, "vector", -1) };
  });
  const submissions = array(plain.submissions, queues + 1, "submission queues").map((value) => {
    const { plain: queue, id, address, size } = place(value, queues);
    const completion = integer(queue.completion, queues, "completion queue of a queue");
    if (!completions.some((known) => known.id === completion)) refuse("completion queue");
    return { id, address, size, completion };
  });
  for (const list of [completions, submissions])
    if (new Set(list.map(({ id }) => id)).size !== list.length) refuse("queue identifiers");
  return { completions, submissions };
}

/** Checks a state. @throws StackError `pci/state` */
export function checkedState(value: unknown, queues: number, wordCount: number): NvmeState {
  const plain = object(value, "state");
  if (plain.version !== 1) refuse("version");
  const features = object(plain.features, "features");
  const events = object(plain.events, "events");
  const health = object(plain.health, "health log");
  const count = (key: string) => integer(health[key], Number.MAX_SAFE_INTEGER, "health log");
  const outcome = plain.outcome === null ? null : object(plain.outcome, "outcome");
  return {
    version: 1,
    registers: registersOf(plain.registers),
    isStarting: flag(plain.isStarting, "state of life"),
    ...queuesOf(plain, queues),
    features: {
      values: pairs(features.values, "features"),
      over: integer(features.over, 0xffff, "threshold"),
      under: integer(features.under, 0xffff, "threshold"),
      vectors: words(features.vectors, queues + 1, "interrupt vectors"),
    },
    events: {
      pending: pairs(events.pending, "events"),
      masked: array(events.masked, 8, "events").map((type) => integer(type, 7, "events")),
    },
    health: {
      bytesRead: count("bytesRead"),
      bytesWritten: count("bytesWritten"),
      readCommands: count("readCommands"),
      writeCommands: count("writeCommands"),
      mediaErrors: count("mediaErrors"),
    },
    errorCount: integer(plain.errorCount, Number.MAX_SAFE_INTEGER, "error count"),
    outcome:
      outcome === null
        ? null
        : {
            count: integer(outcome.count, 0xffff, "outcome"),
            head: integer(outcome.head, WORD, "outcome"),
            status: integer(outcome.status, 0x7fff, "outcome"),
            result: integer(outcome.result, WORD, "outcome"),
          },
    ...(plain.words === undefined ? {} : { words: words(plain.words, wordCount, "words") }),
  };
}
