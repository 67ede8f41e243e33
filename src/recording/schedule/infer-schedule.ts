/**
 * Infers the hidden schedule of a recording: what order, CPU and flushes make the allocator give the
 * recorded addresses.
 */
import { type IovaRules, LINUX_IOVA_RULES } from "../../dma/iova-rules.ts";
import { PFN_LAST_32BIT } from "../../units.ts";
import { assembleSchedule } from "./assemble.ts";
import { settleLateFrees } from "./late-frees.ts";
import type { Schedule } from "./schedule.ts";
import type { ScheduleEvents } from "./schedule-events.ts";
import { withoutCaches } from "./schedule-events.ts";
import { searchSchedule } from "./search.ts";
import { type PfnRange, settleTreeOrder } from "./tree-order.ts";

/** Reserved on every x86 machine: message-signalled interrupts. */
export const X86_MSI_WINDOW: PfnRange = { first: 0xfee00, last: 0xfeeff };

/** What is known about the machine, and how the search works. */
export interface InferOptions {
  /** Lazy mode: frees go through a flush queue. */
  readonly deferred: boolean;
  /** The recording starts in the middle of the machine's life. */
  readonly fromMiddle?: boolean;
  /** Frames no device may get; where not all are known they are inferred. */
  readonly reserved?: readonly PfnRange[];
  readonly limitPfn?: number;
  /** Rules of the allocator to explain the recording with: Linux's by default. */
  readonly rules?: Partial<IovaRules>;
  readonly width?: number;
  readonly margin?: number;
}

const WIDTH = 24;
const MARGIN = 60;
const RING_PLACES = 255;

/** Infers a schedule. It is a witness: another one may explain the recording as well. */
export function inferSchedule(recorded: ScheduleEvents, options: InferOptions): Schedule {
  const rules = { ...LINUX_IOVA_RULES, ...options.rules };
  const fromMiddle = options.fromMiddle ?? false;
  const limitPfn = options.limitPfn ?? PFN_LAST_32BIT;
  const given = options.reserved ?? [X86_MSI_WINDOW];
  let events = rules.noCache ? withoutCaches(recorded) : recorded;
  // In lazy mode it shows at the flush only: see rings.ts.
  if (!options.deferred) events = settleLateFrees(events);
  let reserved = given;
  if (!fromMiddle) {
    const tree = settleTreeOrder(events, {
      limitPfn,
      reserved: given,
      aligned: !rules.noAlignment,
      searchFromTop: rules.searchFromTop,
      inferWindows: true,
    });
    events = tree.events;
    reserved = [...given, ...tree.windows];
  }
  const story = searchSchedule(events, {
    deferred: options.deferred,
    rules,
    fromMiddle,
    width: options.width ?? WIDTH,
    margin: options.margin ?? MARGIN,
    ringPlaces: RING_PLACES,
  });
  return assembleSchedule(events, story, {
    deferred: options.deferred,
    fromMiddle,
    limitPfn,
    reserved,
  });
}
