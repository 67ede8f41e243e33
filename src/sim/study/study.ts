/**
 * A workload of devices under several variants of a machine: each with its figures, where its time
 * went, and which one change would help most.
 *
 *     const [row] = compareStudy(windowStudy(options));
 *     row.run.speed; // 54.4e6 accesses a second
 *     row.best?.what; // "twice the walkers"
 *
 * What a workload is, what its variants are and what could be changed is in the files beside this.
 */

import type { NodeTime, QueueUse, StepUse, TimePart } from "../where-time.ts";
import { type Slice, SliceRecorder } from "../workload/slices.ts";
import type { MachinePicture } from "./picture.ts";

/** The kinds of workload. */
export type StudyKind = "window" | "all-reduce" | "accelerator" | "vm-start";

/** What a run gave. Times are picoseconds. */
export interface StudyRun {
  /** What changes are judged by, more is better; null without a steady state. */
  readonly speed: number | null;
  /** Why there is none. */
  readonly reason: string | null;
  /** Half the 95 % confidence interval of the speed, relative to it; 0 of a run to an end. */
  readonly halfWidth: number;
  /** Figures by name; which there are depends on the kind. */
  readonly values: Readonly<Record<string, number | null>>;
  /** Largest first. */
  readonly parts: readonly TimePart[];
  /** What shares of parts are of. */
  readonly whole: number;
  readonly nodes: readonly NodeTime[];
  readonly steps: readonly StepUse[];
  readonly queues: readonly QueueUse[];
  /** Virtual time of the run. */
  readonly time: number;
  readonly hash: string;
}

/** A change of the machine or of how it is set up. */
export interface StudyChange {
  /** For programs: `free:iotlbMiss`, `walkers`, … */
  readonly id: string;
  /** For people. */
  readonly what: string;
  /** Whether it changes what translation costs. */
  readonly isTranslation: boolean;
  /** Whether it is how things are set up, and no other hardware. */
  readonly isSetting: boolean;
  run(): StudyRun;
}

/** One way to set things up. */
export interface StudyVariant {
  readonly name: string;
  run(): StudyRun;
  /** Who held what, in a part of a run that took that long. */
  timeline(run: StudyRun): readonly Slice[];
  /** The same without all that translation costs; null where nothing is translated. */
  readonly free: StudyChange | null;
  /** Changes that are worth a try. */
  changes(run: StudyRun): readonly StudyChange[];
}

/** A workload. */
export interface Study {
  readonly kind: StudyKind;
  /** What is run, in a line. */
  readonly title: string;
  readonly picture: MachinePicture;
  readonly variants: readonly StudyVariant[];
}

/** What a change gives. */
export interface StudyGain extends Omit<StudyChange, "run"> {
  /** Null when that run did not settle. */
  readonly speed: number | null;
  /** Relative to the machine as it is: 0.5 is half as fast again. */
  readonly gain: number | null;
}

/** One variant's run. */
export interface StudyOutcome {
  readonly name: string;
  readonly run: StudyRun;
  /** The gain if translation were free; null without a steady state. */
  readonly translationGain: number | null;
  /** The one that helps most first. */
  readonly changes: readonly StudyGain[];
  /** Null when none helps that was tried. */
  readonly best: StudyGain | null;
  /** The best of those that take no other hardware. */
  readonly bestSetting: StudyGain | null;
}

/** A gain that nobody would act upon. */
const GAIN_MIN = 0.01;

/** Runs every variant, and the changes of each. @param progress - told what is run next */
export function compareStudy(
  study: Study,
  progress: (what: string) => void = () => {},
): readonly StudyOutcome[] {
  return study.variants.map((variant) => {
    progress(variant.name);
    const run = variant.run();
    const outcome = { name: variant.name, run };
    const { speed } = run;
    if (speed === null)
      return { ...outcome, translationGain: null, changes: [], best: null, bestSetting: null };
    const gainOf = (change: StudyChange): StudyGain => {
      progress(`${variant.name}, with ${change.what}`);
      const { id, what, isTranslation, isSetting } = change;
      const changed = change.run().speed;
      return {
        id,
        what,
        isTranslation,
        isSetting,
        speed: changed,
        gain: changed === null ? null : changed / speed - 1,
      };
    };
    const changes = variant
      .changes(run)
      .map(gainOf)
      .sort((a, b) => (b.gain ?? -1) - (a.gain ?? -1) || (a.id < b.id ? -1 : 1));
    const noise = Math.max(GAIN_MIN, 2 * run.halfWidth);
    const helping = changes.filter(({ gain }) => (gain ?? 0) > noise);
    const best = helping[0] ?? null;
    const bestSetting = helping.find(({ isSetting }) => isSetting) ?? null;
    const translationGain = variant.free === null ? 0 : gainOf(variant.free).gain;
    return { ...outcome, translationGain, changes, best, bestSetting };
  });
}

/** Shares of a run between which a timeline lies: behind what is warm-up. */
const TIMELINE = [0.1, 0.12] as const;

/** The slices of a short part of a run that is done again. */
export function timelineOfRun(
  { time }: StudyRun,
  again: (slices: SliceRecorder) => void,
): readonly Slice[] {
  const slices = new SliceRecorder(TIMELINE[0] * time, TIMELINE[1] * time);
  again(slices);
  return slices.slices;
}

/** The slices of a whole run that is done again. */
export function wholeTimeline(again: (slices: SliceRecorder) => void): readonly Slice[] {
  const slices = new SliceRecorder(0, Number.POSITIVE_INFINITY);
  again(slices);
  return slices.slices;
}

/** Changes in the order of what they could save at most, the first of them. */
export function likeliest(
  changes: readonly (StudyChange & { readonly worth: number })[],
  count: number,
): readonly StudyChange[] {
  return changes
    .filter(({ worth }) => worth > 0)
    .sort((a, b) => b.worth - a.worth || (a.id < b.id ? -1 : 1))
    .slice(0, count);
}

/** Time of the parts that fit. */
export function timeIn(run: StudyRun, fits: (part: TimePart) => boolean): number {
  return run.parts.filter(fits).reduce((sum, { time }) => sum + time, 0);
}
