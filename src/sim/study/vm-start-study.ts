/** The start of a VM with devices passed through, by every path on which BARs can be mapped. */
import type { StepName } from "../../meter.ts";
import { type FollowRules, followRules } from "../../vfio/process/mappable-device.ts";
import type { TimePart } from "../where-time.ts";
import type { BarPlan, BarWay, RamPlan } from "../workload/vm-mappings.ts";
import { runVmStart, type VmStartMachine, type VmStartPlan } from "../workload/vm-start.ts";
import { vmStartPicture } from "./pictures.ts";
import { likeliest, type Study, type StudyChange, type StudyRun, wholeTimeline } from "./study.ts";

interface Path {
  readonly way: BarWay;
  readonly rules: FollowRules;
  readonly processOffset: number;
}

/** 2 MiB: what agrees modulo 2 MiB and not modulo 1 GiB. */
const PMD_PAGES = 512;

/** Paths by name, slowest first: the kernels before 6.12, 6.12 to 6.14, from 6.15 on; proposals. */
const paths = {
  "4k-pte": { way: "follow", rules: followRules["linux-6.11"], processOffset: 0 },
  "by-page": { way: "follow", rules: followRules["linux-6.12"], processOffset: 0 },
  pmd: { way: "follow", rules: followRules["linux-6.15"], processOffset: PMD_PAGES },
  pud: { way: "follow", rules: followRules["linux-6.15"], processOffset: 0 },
  "dont-pin": { way: "dont-pin", rules: followRules["linux-6.12"], processOffset: 0 },
  "dma-buf": { way: "dma-buf", rules: followRules.iommufd, processOffset: 0 },
} as const satisfies Record<string, Path>;

export type VmStartVariant = keyof typeof paths;
export const vmStartVariants = Object.keys(paths) as VmStartVariant[];

/** What to study. */
export interface VmStartStudyOptions {
  readonly machine: VmStartMachine;
  readonly ram: RamPlan | null;
  /** Huge pages instead, where RAM has none. */
  readonly hugeRam: RamPlan | null;
  readonly bars: readonly Pick<BarPlan, "count" | "pages" | "deviceOffset">[];
  readonly unmapMode: "kernel" | "extents";
  readonly variants: readonly VmStartVariant[];
}

const CHANGES = 6;
const PS_PER_NS = 1000;

const ofBars = (step: string) => `${step} of BARs`;

/** The study. */
export function vmStartStudy(options: VmStartStudyOptions): Study {
  const { ram, bars, variants } = options;
  const gib = (pages: number) => `${pages / 2 ** 18} GiB`;
  const faults = ram?.faulting === undefined ? "" : " that faults";
  const parts = [
    ...(ram === null ? [] : [`${gib(ram.pages)} of RAM${faults}`]),
    ...bars.map(({ count, pages }) => `${count} BARs of ${gib(pages)}`),
  ];
  return {
    kind: "vm-start",
    picture: vmStartPicture(ram, bars),
    title: `start of a VM: ${parts.join(", ")}`,
    variants: variants.map((name) => ({
      name,
      run: () => measure(options, name),
      timeline: () => wholeTimeline((slices) => runVmStart({ ...planOf(options, name), slices })),
      free: {
        id: "free:translation",
        what: "nothing mapped for devices",
        isTranslation: true,
        isSetting: false,
        run: () => measure({ ...options, ram: null, bars: [] }, name),
      },
      changes: (base) => changesOf(options, name, base),
    })),
  };
}

function changesOf(
  options: VmStartStudyOptions,
  name: VmStartVariant,
  base: StudyRun,
): readonly StudyChange[] {
  const { machine, hugeRam, bars } = options;
  const timeOf = (...wanted: string[]) =>
    base.parts
      .filter((part) => wanted.includes(part.name))
      .reduce((sum, { time }) => sum + time, 0);
  const change = (
    id: string,
    what: string,
    worth: number,
    changed: Partial<VmStartStudyOptions>,
    path: VmStartVariant = name,
  ) => {
    const run = () => measure({ ...options, ...changed }, path);
    const isSetting = ["huge-pages", "no-lookup", "align"].includes(id);
    return { id, what, worth, isTranslation: id !== "start", isSetting, run };
  };
  const priced = [...machine.prices.map.prices, ...(machine.barPrices?.map.prices ?? [])];
  const free = [...new Set(priced.map(({ step }) => step))].map((step) => {
    const saved = timeOf(step, ofBars(step));
    const what = {
      id: `free:${step}`,
      what: `${step} free`,
      isTranslation: true,
      isSetting: false,
    };
    return { ...what, worth: saved, run: () => shorter(base, saved) };
  });
  const ramWorth = timeOf("pageFault", "pagePin", "pinBatch", "domainMap", "entryWrite");
  const isBest = name === "dma-buf" || name === "dont-pin";
  const lookups = timeOf(...["pfnLookup", "pinRefused", "pageFault"].map(ofBars));
  const offset = bars.some(({ deviceOffset }) => deviceOffset % PMD_PAGES !== 0);
  return likeliest(
    [
      ...free,
      change("huge-pages", "RAM of huge pages", hugeRam === null ? 0 : ramWorth, { ram: hugeRam }),
      change("no-lookup", "BARs as dma-bufs", isBest ? 0 : lookups, {}, "dma-buf"),
      change(
        "align",
        "BARs aligned for the device",
        offset ? timeOf(ofBars("entryWrite"), ofBars("tableAlloc")) : 0,
        {
          bars: bars.map((bar) => ({ ...bar, deviceOffset: 0 })),
        },
      ),
      change("start", "half of what else a start takes", timeOf("start") / 2, {
        machine: { ...machine, startNs: machine.startNs / 2 },
      }),
    ],
    CHANGES,
  );
}

/** Nobody waits during a start: what costs nothing is what is missing from its time. */
function shorter(base: StudyRun, saved: number): StudyRun {
  const whole = base.whole - saved;
  return { ...base, whole, speed: speedOf(whole) };
}

/** Starts a second; one that takes no time is as fast as can be said. */
function speedOf(mapTime: number): number {
  return 1e12 / Math.max(1, mapTime);
}

function planOf(options: VmStartStudyOptions, name: VmStartVariant): VmStartPlan {
  const { machine, ram, bars, unmapMode } = options;
  const { way, rules, processOffset } = paths[name];
  return {
    machine,
    unmapMode,
    ...(ram === null ? {} : { ram }),
    bars: bars.map((bar) => ({ ...bar, way, rules, processOffset })),
  };
}

function measure(options: VmStartStudyOptions, name: VmStartVariant): StudyRun {
  const { machine } = options;
  const { mapTime, unmapTime, mapCharges, barCharges, hash } = runVmStart(planOf(options, name));
  const bars = new Map(barCharges.map(({ step, time, amount }) => [step, { time, amount }]));
  const amount = (wanted: StepName) => mapCharges.find(({ step }) => step === wanted)?.amount ?? 0;
  const startTime = Math.round(machine.startNs * PS_PER_NS);
  const parts: TimePart[] = [
    { kind: "hold", name: "start", resource: "software", time: startTime },
    ...mapCharges.flatMap(({ step, time }): TimePart[] => {
      const barTime = bars.get(step)?.time ?? 0;
      const part = { kind: "hold", resource: "VMM's CPU" } as const;
      return [
        { ...part, name: step, time: time - barTime },
        { ...part, name: ofBars(step), time: barTime },
      ];
    }),
  ];
  return {
    speed: speedOf(mapTime),
    reason: null,
    halfWidth: 0,
    values: {
      mapNs: mapTime / PS_PER_NS,
      unmapNs: unmapTime / PS_PER_NS,
      pagesPinned: amount("pagePin"),
      pagesZeroed: amount("pageFault") - (bars.get("pageFault")?.amount ?? 0),
      lookups: amount("pfnLookup"),
      entries: amount("entryWrite"),
      tables: amount("tableAlloc"),
    },
    parts: parts.filter((part) => part.time > 0).sort((a, b) => b.time - a.time),
    whole: mapTime,
    nodes: [],
    steps: mapCharges.map(({ step, amount: sum, time }) => ({ step, amount: sum, time })),
    queues: [],
    time: mapTime + unmapTime,
    hash,
  };
}
