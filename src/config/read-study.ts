/**
 * Reads scenarios of devices' workloads into studies: what is of the right form but cannot exist is
 * refused by name, with line and column.
 */
import type { z } from "zod";
import { acceleratorStudy, acceleratorVariants } from "../sim/study/accelerator-study.ts";
import { allReduceStudy, allReduceVariants } from "../sim/study/all-reduce-study.ts";
import {
  acceleratorMachines,
  allReduceMachines,
  type NamedMachine,
  vmStartMachines,
  windowMachines,
} from "../sim/study/machines.ts";
import type { Study } from "../sim/study/study.ts";
import { vmStartStudy, vmStartVariants } from "../sim/study/vm-start-study.ts";
import { windowStudy, windowVariants } from "../sim/study/window-study.ts";
import type { RamPlan } from "../sim/workload/vm-mappings.ts";
import { isPowerOfTwo, PAGE_BYTES } from "../units.ts";
import { contiguousFrames, scatteredFrames } from "../vfio/process/frame-source.ts";
import { type Complain, complainer, hintFor, shownName } from "./complaints.ts";
import {
  acceleratorMachineOf,
  allReduceMachineOf,
  vmStartMachineOf,
  windowMachineOf,
} from "./study-machines.ts";
import {
  acceleratorScenario,
  allReduceScenario,
  vmStartScenario,
  windowBytesMax,
  windowScenario,
} from "./study-schema.ts";
import { validate } from "./validate.ts";
import type { YamlSource } from "./yaml-source.ts";

/** A study, and the machine that it is of. */
export interface StudyScenario {
  readonly study: Study;
  readonly machine: { readonly name: string; readonly about: string };
  readonly seed: number;
}

/** What flags say in place of the file. */
export interface StudyFlags {
  readonly policies: readonly string[] | null;
  readonly seed: number | null;
}

const HINT = "docs/run.md describes the form";
const SEED = 1;
const KINDS = ["window", "allReduce", "accelerator", "vmStart"] as const;
const GIB = 2 ** 18;
/** RAM of a guest, and RAM of which each page is dealt with alone. */
const RAM_PAGES_MAX = 1024 * GIB;
const SCATTERED_PAGES_MAX = 16 * GIB;

/** Whether the scenario is one of these, by the key below `workload`. */
export function isStudy(source: YamlSource): boolean {
  return kindOf(source) !== undefined;
}

function kindOf({ value }: YamlSource): (typeof KINDS)[number] | undefined {
  const workload = (value as { workload?: unknown } | null)?.workload;
  if (typeof workload !== "object" || workload === null) return undefined;
  return KINDS.find((kind) => Object.hasOwn(workload, kind));
}

/** Reads one. @throws StackError with line and column */
export function studyFromSource(source: YamlSource, flags: StudyFlags): StudyScenario {
  const reader = new StudyReader(source, flags);
  switch (kindOf(source)) {
    case "window":
      return reader.window();
    case "allReduce":
      return reader.allReduce();
    case "accelerator":
      return reader.accelerator();
    default:
      return reader.vmStart();
  }
}

interface Head {
  readonly policies?: readonly string[] | undefined;
  readonly seed?: number | undefined;
}

class StudyReader {
  readonly #source: YamlSource;
  readonly #flags: StudyFlags;
  readonly #wrong: Complain;
  readonly #impossible: Complain;

  constructor(source: YamlSource, flags: StudyFlags) {
    this.#source = source;
    this.#flags = flags;
    this.#wrong = complainer(source, "config/scenario");
    this.#impossible = complainer(source, "config/impossible-machine", ["machine"]);
  }

  window(): StudyScenario {
    const document = validate(this.#source, windowScenario, HINT);
    const { bytes, write, single, warm, tableNode, accesses, atsEntries, faults } =
      document.workload.window;
    const { base, own, head } = this.#machine(document.machine, windowMachines);
    const machine = windowMachineOf(base.machine, own, head.name, this.#impossible);
    const windowBytes = Number(bytes);
    if (windowBytes < PAGE_BYTES || windowBytes > windowBytesMax) {
      const message = `workload.window.bytes: a window of ${windowBytes} bytes`;
      const hint = `a window is of one page, ${PAGE_BYTES}, to ${windowBytesMax} bytes`;
      throw this.#wrong(["workload", "window", "bytes"], message, hint);
    }
    if (windowBytes % PAGE_BYTES !== 0) {
      const message = `workload.window.bytes: ${windowBytes} bytes are no whole pages`;
      const hint = `a multiple of ${PAGE_BYTES}, such as ${Math.ceil(windowBytes / PAGE_BYTES) * PAGE_BYTES}`;
      throw this.#wrong(["workload", "window", "bytes"], message, hint);
    }
    if (faults?.kind === "pri" && atsEntries === undefined) {
      const message = "workload.window.faults.kind: page requests without ATS";
      const hint = "give atsEntries: who asks for pages has a translation cache of its own";
      throw this.#wrong(["workload", "window", "faults", "kind"], message, hint);
    }
    const seed = this.#seed(document);
    const study = windowStudy({
      ...(atsEntries === undefined ? {} : { atsEntries }),
      ...(faults === undefined ? {} : { faults }),
      machine,
      windowBytes,
      isWrite: write,
      isSingle: single,
      isWarm: warm,
      tableNode,
      accesses,
      seed,
      variants: this.#variants(document, windowVariants),
    });
    return { study, machine: head, seed };
  }

  allReduce(): StudyScenario {
    const document = validate(this.#source, allReduceScenario, HINT);
    const { nodes, mapperNode, shareBytes } = document.workload.allReduce;
    const { base, own, head } = this.#machine(document.machine, allReduceMachines);
    const machine = allReduceMachineOf(base.machine, own, head.name, this.#impossible);
    const at = ["workload", "allReduce"];
    const units = machine.units ?? [0, 0, 1, 1].map((node) => ({ node, nics: 2 }));
    const known = [...new Set(units.map(({ node }) => node))].sort((a, b) => a - b);
    const taking = nodes ?? known;
    const hint = `IOMMUs of the machine "${head.name}" are on node ${known.join(", ")}`;
    for (const [index, node] of taking.entries()) {
      const message = `workload.allReduce.nodes[${index}]: nothing is on node ${node}`;
      if (!known.includes(node)) throw this.#wrong([...at, "nodes", index], message, hint);
      if (taking.indexOf(node) === index) continue;
      const twice = `workload.allReduce.nodes[${index}]: node ${node} is there twice`;
      throw this.#wrong([...at, "nodes", index], twice, "name each node once");
    }
    if (!known.includes(mapperNode)) {
      const message = `workload.allReduce.mapperNode: there is no node ${mapperNode}`;
      throw this.#wrong([...at, "mapperNode"], message, hint);
    }
    const nics = units
      .filter(({ node }) => taking.includes(node))
      .reduce((sum, each) => sum + each.nics, 0);
    if (nics * machine.hosts < 2) {
      const message = `workload.allReduce: ${nics * machine.hosts} ranks have nothing to reduce`;
      throw this.#wrong(at, message, "each NIC of each host is a rank: at least two are needed");
    }
    const share = Number(shareBytes);
    if (share < machine.nic.bytes || share > 2 ** 32) {
      const message = `workload.allReduce.shareBytes: a share of ${share} bytes`;
      const bound = `a share is of one request, ${machine.nic.bytes} bytes, to 4 GiB`;
      throw this.#wrong([...at, "shareBytes"], message, bound);
    }
    const seed = this.#seed(document);
    const variants = this.#variants(document, allReduceVariants);
    const options = { machine, nodes: taking, mapperNode, shareBytes: share, seed, variants };
    return { study: allReduceStudy(options), machine: head, seed };
  }

  accelerator(): StudyScenario {
    const document = validate(this.#source, acceleratorScenario, HINT);
    const { messageBytes, times, premap } = document.workload.accelerator;
    const { base, own, head } = this.#machine(document.machine, acceleratorMachines);
    const machine = acceleratorMachineOf(base.machine, own, head.name, this.#impossible);
    const bytes = Number(messageBytes);
    if (bytes < PAGE_BYTES || bytes > 32 * 2 ** 20 || bytes % PAGE_BYTES !== 0) {
      const message = `workload.accelerator.messageBytes: a message of ${bytes} bytes`;
      const hint = `a message is of whole pages, ${PAGE_BYTES} bytes to 32 MiB`;
      throw this.#wrong(["workload", "accelerator", "messageBytes"], message, hint);
    }
    const variants = this.#variants(document, acceleratorVariants);
    const study = acceleratorStudy({ machine, messageBytes: bytes, times, premap, variants });
    return { study, machine: head, seed: this.#seed(document) };
  }

  vmStart(): StudyScenario {
    const document = validate(this.#source, vmStartScenario, HINT);
    const { ram, bars, unmap } = document.workload.vmStart;
    const { base, own, head } = this.#machine(document.machine, vmStartMachines);
    const machine = vmStartMachineOf(base.machine, own, this.#impossible);
    const seed = this.#seed(document);
    const study = vmStartStudy({
      machine,
      ram: ram === undefined ? null : this.#ram(ram, ram.pages, seed),
      hugeRam: ram === undefined ? null : this.#ram(ram, "hugetlb", seed),
      bars: bars.map((bar, index) => this.#bar(bar, index)),
      unmapMode: unmap,
      variants: this.#variants(document, vmStartVariants),
    });
    return { study, machine: head, seed };
  }

  #ram(ram: RamForm, pagesAs: RamForm["pages"], seed: number): RamPlan {
    const at = ["workload", "vmStart", "ram", "bytes"];
    const isScattered = pagesAs === "scattered";
    const most = isScattered ? SCATTERED_PAGES_MAX : RAM_PAGES_MAX;
    const pages = Number(ram.bytes) / PAGE_BYTES;
    if (!(pages >= 512 && pages <= most && pages % 512 === 0)) {
      const message = `workload.vmStart.ram.bytes: a guest with ${ram.bytes} bytes`;
      const hint = `RAM is a multiple of 2 MiB, up to ${most / GIB} GiB`;
      throw this.#wrong(at, message, hint);
    }
    const touched = Number(ram.faults?.touchedBytes ?? 0n) / PAGE_BYTES;
    if (!(Number.isInteger(touched) && touched <= pages)) {
      const message = "workload.vmStart.ram.faults.touchedBytes: no part of RAM in whole pages";
      throw this.#wrong(["workload", "vmStart", "ram", "faults"], message, "at most all of RAM");
    }
    if (touched > SCATTERED_PAGES_MAX) {
      const message = "workload.vmStart.ram.faults.touchedBytes: more than 16 GiB page by page";
      throw this.#wrong(["workload", "vmStart", "ram", "faults"], message, "touch less of it");
    }
    const faults = ram.faults;
    const basePfn = 2 ** 22;
    return {
      pages,
      backing:
        pagesAs === "hugetlb"
          ? { kind: "hugetlb", order: 9 }
          : { kind: "anonymous", isHuge: pagesAs === "thp" },
      frames: () =>
        isScattered
          ? scatteredFrames({ basePfn, pages: pages * 2, unitPages: 1, seed })
          : contiguousFrames({ basePfn, pages: pages * 2 }),
      isTouched: ram.touched,
      batchPages: ram.batch,
      ...(faults === undefined
        ? {}
        : { faulting: { touchedPages: touched, premap: faults.premap } }),
    };
  }

  #bar({ count, bytes, misalignedBytes }: BarForm, index: number) {
    const pages = Number(bytes) / PAGE_BYTES;
    const deviceOffset = Number(misalignedBytes) / PAGE_BYTES;
    const at = ["workload", "vmStart", "bars", index];
    const name = `workload.vmStart.bars[${index}]`;
    if (!isPowerOfTwo(pages) && !isPowerOfTwo(pages / 3)) {
      const message = `${name}.bytes: a BAR of ${bytes} bytes`;
      throw this.#wrong(
        [...at, "bytes"],
        message,
        "a power of two, or three times one, from 4 KiB",
      );
    }
    if (pages > 256 * GIB) {
      throw this.#wrong(
        [...at, "bytes"],
        `${name}.bytes: a BAR of ${bytes} bytes`,
        "at most 256 GiB",
      );
    }
    if (!Number.isInteger(deviceOffset) || deviceOffset >= GIB) {
      const message = `${name}.misalignedBytes: ${misalignedBytes} is no such offset`;
      throw this.#wrong([...at, "misalignedBytes"], message, "whole pages, below 1 GiB");
    }
    return { count, pages, deviceOffset };
  }

  #seed({ seed }: Head): number {
    return this.#flags.seed ?? seed ?? SEED;
  }

  #variants<V extends string>({ policies }: Head, known: readonly V[]): readonly V[] {
    const asked = this.#flags.policies ?? policies;
    if (asked === undefined) return known;
    for (const [index, name] of asked.entries()) {
      if ((known as readonly string[]).includes(name)) continue;
      const message = `policies[${index}]: there is no policy ${shownName(name)} for this workload`;
      throw this.#wrong(["policies", index], message, hintFor(name, known));
    }
    return known.filter((name) => asked.includes(name));
  }

  #machine<M, F extends { readonly like: string; readonly name?: string | undefined }>(
    given: string | F,
    known: Readonly<Record<string, NamedMachine<M>>>,
  ): { base: NamedMachine<M>; own: Partial<F>; head: { name: string; about: string } } {
    const like = typeof given === "string" ? given : given.like;
    const base = Object.hasOwn(known, like) ? known[like] : undefined;
    if (base === undefined) {
      const at = typeof given === "string" ? ["machine"] : ["machine", "like"];
      const message = `${at.join(".")}: there is no machine ${shownName(like)} for this workload`;
      throw this.#wrong(at, message, hintFor(like, Object.keys(known)));
    }
    if (typeof given === "string") {
      return { base, own: {}, head: { name: like, about: base.about } };
    }
    const name = given.name ?? `like ${like}`;
    return { base, own: given, head: { name, about: `${base.about}, changed` } };
  }
}

type VmForm = z.output<typeof vmStartScenario>["workload"]["vmStart"];
type RamForm = NonNullable<VmForm["ram"]>;
type BarForm = VmForm["bars"][number];
