import { describe, expect, it } from "vitest";
import { contiguousFrames } from "../../vfio/process/frame-source.ts";
import type { VmStartMachine } from "../workload/vm-start.ts";
import { acceleratorStudy } from "./accelerator-study.ts";
import { type AllReduceStudyOptions, allReduceStudy } from "./all-reduce-study.ts";
import { withFree } from "./dma-changes.ts";
import {
  acceleratorMachines,
  allReduceMachines,
  vmStartMachines,
  windowMachines,
} from "./machines.ts";
import { compareStudy, type Study, type StudyOutcome } from "./study.ts";
import { type VmStartStudyOptions, vmStartStudy } from "./vm-start-study.ts";
import { type WindowStudyOptions, windowStudy } from "./window-study.ts";

const MIB = 2 ** 20;
const GIB_PAGES = 2 ** 18;

const windowOptions: WindowStudyOptions = {
  machine: windowMachines["broadwell"]!.machine,
  windowBytes: 16 * MIB,
  isWrite: false,
  isSingle: false,
  isWarm: false,
  seed: 1,
  accesses: 20_000,
  variants: ["none", "4k", "2m"],
};

const host = allReduceMachines["all-reduce-host"]!.machine;
const allReduceOptions: AllReduceStudyOptions = {
  machine: { ...host, pages: 2 ** 14 },
  nodes: [0, 1],
  mapperNode: 1,
  shareBytes: MIB,
  seed: 1,
  variants: ["one-domain", "by-node"],
};

const vmOptions: VmStartStudyOptions = {
  machine: vmStartMachines["vm-host"]!.machine,
  ram: {
    pages: GIB_PAGES / 8,
    backing: { kind: "anonymous", isHuge: false },
    frames: () => contiguousFrames({ basePfn: 2 ** 22, pages: GIB_PAGES }),
    isTouched: false,
    batchPages: 512,
  },
  hugeRam: null,
  bars: [{ count: 2, pages: 4 * GIB_PAGES, deviceOffset: 0 }],
  unmapMode: "extents",
  variants: ["by-page", "pmd", "pud", "dont-pin", "dma-buf"],
};

function outcomes(study: Study): Record<string, StudyOutcome> {
  return Object.fromEntries(compareStudy(study).map((outcome) => [outcome.name, outcome]));
}

function gainOf({ changes }: StudyOutcome, id: string): number | null {
  return changes.find((change) => change.id === id)?.gain ?? null;
}

describe("a study", () => {
  it.each([
    ["window", () => windowStudy({ ...windowOptions, variants: ["4k"] })],
    ["all-reduce", () => allReduceStudy({ ...allReduceOptions, variants: ["one-domain"] })],
    [
      "accelerator",
      () =>
        acceleratorStudy({
          machine: acceleratorMachines["kunpeng-vfio"]!.machine,
          messageBytes: MIB,
          times: 4,
          premap: 1,
          variants: ["faults"],
        }),
    ],
    ["vm-start", () => vmStartStudy({ ...vmOptions, variants: ["pud"] })],
  ] as const)("%s is the same twice, and its parts are all of its time", (kind, make) => {
    const study = make();
    expect(study.kind).toBe(kind);
    const [variant] = study.variants;
    const first = variant!.run();
    expect(variant!.run()).toEqual(first);
    const sum = first.parts.reduce((all, { time }) => all + time, 0);
    expect(sum).toBe(first.whole);
    const slices = variant!.timeline(first);
    expect(slices.length).toBeGreaterThan(0);
    for (const { start, end } of slices) expect(end).toBeGreaterThanOrEqual(start);
  });
});

describe("a window", () => {
  const found = outcomes(windowStudy(windowOptions));

  it("is not the IOMMU's fault without one, or with large pages", () => {
    for (const name of ["none", "2m"]) {
      expect(found[name]!.translationGain, name).toBeLessThan(0.02);
      expect(found[name]!.best, name).toMatchObject({ id: "device", isTranslation: false });
    }
  });

  it("is helped most by large pages where small ones miss, and those keep the promise", () => {
    const small = found["4k"]!;
    expect(small.best).toMatchObject({ id: "large-pages", isSetting: true });
    expect(small.translationGain).toBeGreaterThan(1);
    const promised = small.run.speed! * (1 + small.best!.gain!);
    expect(promised / found["2m"]!.run.speed!).toBeCloseTo(1, 2);
  });

  it("has no mean where it is too short", () => {
    const tableNode = 1;
    const study = windowStudy({ ...windowOptions, tableNode, variants: ["4k"], accesses: 2_000 });
    const [outcome] = compareStudy(study);
    // A few accesses a batch: the confidence interval says so, or there is none.
    const { speed, halfWidth } = outcome!.run;
    expect(speed === null || halfWidth > 0.0005).toBe(true);
  });
});

describe("an all-reduce", () => {
  it("is helped by a domain for each node where tables are far, and not where they are near", () => {
    const { "one-domain": one, "by-node": each } = outcomes(allReduceStudy(allReduceOptions));
    const gain = gainOf(one!, "by-node")!;
    expect(gain).toBeGreaterThan(0.2);
    expect(one!.run.speed! * (1 + gain)).toBeCloseTo(each!.run.speed!, -3);
    expect(gainOf(each!, "by-node")).toBeNull();
    const [node0, node1] = one!.run.nodes;
    expect([node0!.remote > 0, node1!.remote]).toEqual([true, 0]);
  });

  it("is not the IOMMU's fault with huge pages: what helps is a faster wire", () => {
    const machine = { ...allReduceOptions.machine, blockPages: 512 } as const;
    const { "by-node": row } = outcomes(
      allReduceStudy({ ...allReduceOptions, machine, variants: ["by-node"] }),
    );
    expect(row!.translationGain).toBeLessThan(0.02);
    expect(row!.best).toMatchObject({ id: "wire", isTranslation: false });
  });

  it("runs on IOMMUs and devices of one's own", () => {
    const units = [
      { name: "a", node: 0, gpus: 1, nics: 1 },
      { name: "b", node: 2, gpus: 0, nics: 3 },
    ];
    const machine = { ...allReduceOptions.machine, units };
    const study = allReduceStudy({ ...allReduceOptions, machine, nodes: [0, 2], mapperNode: 0 });
    const [one] = compareStudy(study);
    expect(one!.run.nodes.map(({ node }) => node)).toEqual([0, 2]);
    const [near, far] = one!.run.nodes;
    expect(far!.requests).toBe(3 * near!.requests);
    expect([near!.remote, far!.remote > 0]).toEqual([0, true]);
  });
});

describe("an accelerator", () => {
  it("is held back by its faults, unless everything is mapped before", () => {
    const machine = acceleratorMachines["kunpeng-sva"]!.machine;
    const options = { machine, messageBytes: MIB, times: 10, premap: 1 };
    const found = outcomes(acceleratorStudy({ ...options, variants: ["mapped", "faults"] }));
    expect(found["mapped"]!.translationGain).toBe(0);
    const faults = found["faults"]!;
    expect(faults.run.values["faults"]).toBe(1024);
    const promised = faults.run.speed! * (1 + faults.translationGain!);
    expect(promised / found["mapped"]!.run.speed!).toBeCloseTo(1, 9);
  });
});

describe("the start of a VM", () => {
  it("takes the fewer lookups the larger the entries, and none by dma-buf", () => {
    const found = outcomes(vmStartStudy(vmOptions));
    const lookups = vmOptions.variants.map((name) => found[name]!.run.values["lookups"]);
    expect(lookups).toEqual([8 * GIB_PAGES, (8 * GIB_PAGES) / 512, 8, 0, 0]);
    const gain = gainOf(found["by-page"]!, "no-lookup")!;
    const promised = found["by-page"]!.run.speed! * (1 + gain);
    expect(promised / found["dma-buf"]!.run.speed!).toBeCloseTo(1, 9);
    expect(found["dma-buf"]!.bestSetting).toBeNull();
  });

  it("with a step free is as quick as on a machine where it costs nothing", () => {
    const [variant] = vmStartStudy({ ...vmOptions, variants: ["pmd"] }).variants;
    const base = variant!.run();
    for (const step of ["pageFault", "pfnLookup"] as const) {
      const promised = variant!
        .changes(base)
        .find(({ id }) => id === `free:${step}`)!
        .run();
      const without = ({ map, unmap }: NonNullable<VmStartMachine["barPrices"]>) => ({
        map: withFree(map, step),
        unmap,
      });
      const { machine } = vmOptions;
      const prices = without(machine.prices);
      const other = { ...machine, prices, barPrices: without(machine.barPrices!) };
      const study = vmStartStudy({ ...vmOptions, machine: other, variants: ["pmd"] });
      expect(study.variants[0]!.run().speed, step).toBe(promised.speed);
    }
  });

  it("is quicker with RAM that faults, and pays by the page that a device touches", () => {
    const timeOf = (touchedPages: number, premap = 1) => {
      const ram = { ...vmOptions.ram!, faulting: { touchedPages, premap } };
      const [outcome] = compareStudy(
        vmStartStudy({ ...vmOptions, ram, bars: [], variants: ["pud"] }),
      );
      return outcome!.run;
    };
    const pinned = compareStudy(vmStartStudy({ ...vmOptions, bars: [], variants: ["pud"] }))[0]!;
    const none = timeOf(0);
    expect(none.whole).toBeLessThan(pinned.run.whole);
    const some = timeOf(1000);
    expect(some.values["pagesZeroed"]).toBe(1000);
    expect(some.whole).toBeGreaterThan(none.whole);
    expect(timeOf(2000).values["pagesZeroed"]).toBe(2000);
  });
});
