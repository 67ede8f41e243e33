/** Messages through an accelerator: all mapped before, or pages that fault. */
import { PAGE_BYTES } from "../../units.ts";
import type { StepUse, TimePart } from "../where-time.ts";
import {
  type AcceleratorMachine,
  type AcceleratorRun,
  runAccelerator,
} from "../workload/accelerator-run.ts";
import { withFree } from "./dma-changes.ts";
import { acceleratorPicture } from "./pictures.ts";
import { likeliest, type Study, type StudyChange, type StudyRun, wholeTimeline } from "./study.ts";

/** How buffers get mapped. */
export const acceleratorVariants = ["mapped", "faults"] as const;
export type AcceleratorVariant = (typeof acceleratorVariants)[number];

/** What to study. */
export interface AcceleratorStudyOptions extends Omit<AcceleratorRun, "isFaulting"> {
  readonly variants: readonly AcceleratorVariant[];
}

const CHANGES = 6;
const PS_PER_NS = 1000;
/** Pages that one fault maps, if it is to map many: 2 MiB. */
const PREMAP = 512;

/** The study. */
export function acceleratorStudy(options: AcceleratorStudyOptions): Study {
  const { machine, messageBytes, times, premap, variants } = options;
  const path = machine.kind === "sva" ? "on a process's address space" : "passed to a VM";
  const size = `${messageBytes / 1024} KiB`;
  const mapped = premap === 1 ? "1 page" : `${premap} pages`;
  return {
    kind: "accelerator",
    picture: acceleratorPicture(machine),
    title: `${times} messages of ${size} ${path}, a fault maps ${mapped}`,
    variants: variants.map((name) => {
      const run = { ...options, isFaulting: name === "faults" };
      const free: StudyChange = {
        id: "free:translation",
        what: "everything mapped before",
        isTranslation: true,
        isSetting: true,
        run: () => measure({ ...run, isFaulting: false }),
      };
      return {
        name,
        run: () => measure(run),
        timeline: () => wholeTimeline((slices) => runAccelerator({ ...run, slices })),
        free: run.isFaulting ? free : null,
        changes: (base) => changesOf(run, base),
      };
    }),
  };
}

function changesOf(run: AcceleratorRun, base: StudyRun): readonly StudyChange[] {
  const { machine, premap } = run;
  const timeOf = (wanted: string) =>
    base.parts.filter(({ name }) => name === wanted).reduce((sum, { time }) => sum + time, 0);
  const report = timeOf("fault report");
  const faulting = base.whole - timeOf("start-up") - timeOf("moving data");
  const change = (
    id: string,
    what: string,
    worth: number,
    changed: Partial<AcceleratorMachine>,
    isTranslation = true,
  ) => {
    const other = { ...run, machine: { ...machine, ...changed } };
    return { id, what, worth, isTranslation, isSetting: false, run: () => measure(other) };
  };
  const { inFlight } = machine;
  const premapped = premap >= PREMAP || machine.kind === "sva" ? 0 : faulting;
  return likeliest(
    [
      ...machine.prices.prices.map(({ step }) =>
        change(`free:${step}`, `${step} free`, timeOf(step), {
          prices: withFree(machine.prices, step),
        }),
      ),
      change("report", "faults reported twice as fast", report / 2, {
        reportNs: machine.reportNs / 2,
      }),
      change("in-flight", "twice as many accesses in flight", faulting / 2, {
        inFlight: { alone: inFlight.alone * 2, together: inFlight.together * 2 },
      }),
      {
        id: "premap",
        what: `${PREMAP} pages mapped at a fault`,
        isTranslation: true,
        isSetting: true,
        worth: premapped,
        run: () => measure({ ...run, premap: PREMAP }),
      },
      change(
        "start-up",
        "half the start-up",
        timeOf("start-up") / 2,
        {
          startUpNs: machine.startUpNs / 2,
        },
        false,
      ),
      change(
        "device",
        "a device twice as fast",
        timeOf("moving data") / 2,
        {
          bytesPerSecond: machine.bytesPerSecond * 2,
        },
        false,
      ),
    ],
    CHANGES,
  );
}

function measure(run: AcceleratorRun): StudyRun {
  const { machine, messageBytes, times } = run;
  const { time, faultTime, faults, steps, hash } = runAccelerator(run);
  const bytesPerSecond = (messageBytes * times * 1e12) / time;
  const startUp = Math.round(machine.startUpNs * PS_PER_NS);
  const handling = steps.reduce((sum, step) => sum + step.time, 0);
  const parts: TimePart[] = [
    { kind: "hold", name: "start-up", resource: "software", time: startUp },
    { kind: "hold", name: "moving data", resource: "device", time: time - startUp - faultTime },
    { kind: "wait", name: "fault report", resource: "fault queue", time: faultTime - handling },
    ...steps.map(
      ({ step, time: own }: StepUse): TimePart => ({
        kind: "hold",
        name: step,
        resource: "fault handler",
        time: own,
      }),
    ),
  ];
  return {
    speed: bytesPerSecond,
    reason: null,
    halfWidth: 0,
    values: {
      bytesPerSecond,
      timeNs: time / PS_PER_NS,
      faults,
      faultShare: faultTime / time,
      nsPerFault: faults === 0 ? null : faultTime / faults / PS_PER_NS,
      bufferPages: (2 * messageBytes) / PAGE_BYTES,
    },
    parts: parts.filter((part) => part.time > 0).sort((a, b) => b.time - a.time),
    whole: time,
    nodes: [],
    steps,
    queues: [],
    time,
    hash,
  };
}
