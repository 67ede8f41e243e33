/** Random DMA in a window of memory: without an IOMMU, with small pages, with large ones. */
import { PriceList } from "../price-list.ts";
import { runWindow, type WindowMachine, type WindowRun } from "../workload/random-window.ts";
import { type MachineChange, quicker, runnable, translationChanges } from "./dma-changes.ts";
import { windowPicture } from "./pictures.ts";
import {
  likeliest,
  type Study,
  type StudyChange,
  type StudyRun,
  timeIn,
  timelineOfRun,
} from "./study.ts";

/** How the buffer can be mapped. */
export const windowVariants = ["none", "4k", "2m"] as const;
export type WindowVariant = (typeof windowVariants)[number];

/** What to study. */
export interface WindowStudyOptions extends Omit<WindowRun, "pageShift"> {
  readonly variants: readonly WindowVariant[];
}

const shifts = { none: null, "4k": 12, "2m": 21 } as const;
const PS_PER_NS = 1000;
const CHANGES = 6;
/** Accesses of a run that only a gain is read off. */
const ACCESSES_CHANGED = 20_000;

/** The study. */
export function windowStudy(options: WindowStudyOptions): Study {
  const { windowBytes, isWrite, isSingle, variants } = options;
  const what = isWrite ? "writes" : "reads";
  const how = isSingle ? "one at a time" : "as many as go";
  return {
    kind: "window",
    picture: windowPicture({ ...options, pageShift: null }),
    title: `random ${what} in ${windowBytes / 1024} KiB, ${how}`,
    variants: variants.map((name) => {
      const run = { ...options, pageShift: shifts[name] };
      const changed = (machine: WindowMachine, more: Partial<WindowRun> = {}) =>
        measure({ ...run, machine, accesses: ACCESSES_CHANGED, ...more });
      const free: StudyChange = {
        id: "free:translation",
        what: "no IOMMU",
        isTranslation: true,
        isSetting: true,
        run: () => changed(run.machine, { pageShift: null }),
      };
      return {
        name,
        run: () => measure(run),
        timeline: (done) => timelineOfRun(done, (slices) => runWindow({ ...run, slices })),
        free: name === "none" ? null : free,
        changes: (base) => changesOf(run, base, changed),
      };
    }),
  };
}

function changesOf(
  run: WindowRun,
  base: StudyRun,
  changed: (machine: WindowMachine, more?: Partial<WindowRun>) => StudyRun,
): readonly StudyChange[] {
  const { machine, pageShift, isSingle, isWrite, tableNode = 0 } = run;
  const translation = pageShift === null ? [] : translationChanges(machine, base);
  const walks = timeIn(base, ({ resource }) => resource === "IOMMU" || resource === "walkers");
  const more = (id: string, what: string, worth: number, change: Partial<WindowRun>) => {
    const run = () => changed(machine, change);
    return { id, what, isTranslation: true, isSetting: true, worth, run };
  };
  const remote = base.nodes.reduce((sum, node) => sum + node.remote, 0);
  return likeliest(
    [
      ...[...translation, ...deviceChanges(machine, base, isWrite, isSingle)].map((change) =>
        runnable(change, (other) => changed(other)),
      ),
      more("large-pages", "pages of 2 MiB", pageShift === 12 ? walks : 0, { pageShift: 21 }),
      more("local", "page tables on the IOMMU's node", tableNode === 0 ? 0 : remote, {
        tableNode: 0,
      }),
    ],
    CHANGES,
  );
}

function deviceChanges(
  machine: WindowMachine,
  base: StudyRun,
  isWrite: boolean,
  isSingle: boolean,
): readonly MachineChange<WindowMachine>[] {
  const links = timeIn(base, ({ resource }) => resource.startsWith("link "));
  const memory = timeIn(base, ({ resource }) => resource === "memory");
  const side = isWrite ? "writes" : "reads";
  const speed = machine[side];
  const change = (id: string, what: string, worth: number, changed: Partial<WindowMachine>) => ({
    id,
    what,
    isTranslation: false,
    machine: { ...machine, ...changed },
    worth,
  });
  const device = { ...speed, gap: Math.round(speed.gap / 2) };
  const deep = { ...speed, inFlight: speed.inFlight * 2 };
  const whole = isSingle ? 0 : base.whole;
  return [
    change("links", "a PCIe link twice as fast", links / 2, {
      up: quicker(machine.up),
      down: quicker(machine.down),
    }),
    change("memory", "memory twice as fast", memory / 2, {
      memoryTime: Math.round(machine.memoryTime / 2),
      cacheTime: Math.round(machine.cacheTime / 2),
    }),
    change("device", "a device that issues twice as often", whole / 2, { [side]: device }),
    change("in-flight", "twice as many requests in flight", whole / 2, { [side]: deep }),
  ];
}

function measure(run: WindowRun): StudyRun {
  const { latency, rate, percentiles, hits, misses, walkerShare, faults, where, time, hash } =
    runWindow(run);
  const judged = run.isSingle ? latency : rate;
  const isSteady = judged.kind === "steady";
  const ns = (share: number) => (isSteady ? percentiles.percentile(share) / PS_PER_NS : null);
  const perSecond = rate.kind === "steady" ? rate.mean : null;
  const mean = latency.kind === "steady" ? latency.mean / PS_PER_NS : null;
  const looked = hits + misses;
  return {
    speed: !isSteady ? null : run.isSingle ? 1e12 / judged.mean : judged.mean,
    reason: isSteady ? null : judged.reason,
    halfWidth: isSteady ? judged.halfWidth95 / judged.mean : 0,
    values: {
      accessesPerSecond: perSecond,
      bytesPerSecond: perSecond === null ? null : perSecond * 64,
      meanNs: mean,
      p50Ns: ns(0.5),
      p99Ns: ns(0.99),
      hitShare: looked === 0 ? null : hits / looked,
      walkersBusy: walkerShare,
      faults,
    },
    parts: where.parts,
    whole: where.latency,
    nodes: where.nodes,
    steps: where.steps,
    queues: where.queues,
    time,
    hash,
  };
}

/** A machine on which translation costs nothing, though it is done. */
export function freeOfPrices<M extends { readonly prices: PriceList }>(machine: M): M {
  return { ...machine, prices: new PriceList([]) };
}
