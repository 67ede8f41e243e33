/**
 * A fio job file as a workload: which jobs run side by side, with which requests, for how long.
 *
 *     const { groups, warnings } = fioJobs(text, "seed.fio");
 *     groups[0][0]; // { name: "randwrite_multi", pattern: "randwrite", iodepth: 16, numjobs: 16, … }
 *
 * Source: fio's HOWTO; defaults are those of fio 3.33 on Linux: bs 4k, one request at a time, a
 * synchronous engine, reads.
 */
import type { Position } from "../../errors.ts";
import { type JobOption, type JobSection, jobSections, problem, shown } from "./job-lines.ts";
import { classOfOption, type ModelledOption, similarOptions } from "./job-options.ts";
import { type BlockShare, countValue, durationValue, sizeValue, splitValue } from "./job-values.ts";

/** Processes of a job file, all its clones together; fio's own bound. */
export const PROCESSES_MAX = 4096;
/** Requests that a process may have in flight. */
export const IO_DEPTH_MAX = 65_536;
/** A quarter of an hour. */
const THINK_US_MAX = 9e8;

/** One section of a job file. */
export interface FioJob {
  readonly name: string;
  readonly at: Position;
  /** Whether offsets are random. */
  readonly isRandom: boolean;
  /** Reads of a hundred requests. */
  readonly readPercent: number;
  readonly readBlocks: readonly BlockShare[];
  readonly writeBlocks: readonly BlockShare[];
  /** Bytes of the file that are used; null for all of it. */
  readonly sizeBytes: number | null;
  /** Bytes to transfer, where not once the size; null for no bound. */
  readonly ioBytes: number | null;
  /** Requests in flight of one process, as the engine really keeps them. */
  readonly depth: number;
  readonly processes: number;
  /** How long it runs, microseconds; null to run until all is transferred. */
  readonly runtimeUs: number | null;
  readonly rampUs: number;
  /** Whether it starts over until the time is up. */
  readonly isTimeBased: boolean;
  /** Pause of a process, microseconds, and after how many requests; none is in flight then. */
  readonly thinkUs: number;
  readonly thinkBlocks: number;
  /** Requests a second of one process at most; null for no bound. */
  readonly rateIops: number | null;
  readonly filename: string | null;
}

/** Something in a job file that a run will not follow. */
export interface JobWarning {
  readonly code: string;
  readonly message: string;
  readonly at: Position;
}

/** What a job file asks for. */
export interface FioWorkload {
  /** Jobs of one group run side by side, groups one after the other. */
  readonly groups: readonly (readonly FioJob[])[];
  readonly warnings: readonly JobWarning[];
}

/** Engines that keep `iodepth` requests in flight; all others wait for each. */
const asyncEngines = new Set(["libaio", "io_uring", "io_uring_cmd", "posixaio", "solarisaio"]);
const syncEngines = new Set(["psync", "sync", "vsync", "pvsync", "pvsync2", "sg"]);

const patterns = new Map([
  ["read", { isRandom: false, readPercent: 100 }],
  ["write", { isRandom: false, readPercent: 0 }],
  ["randread", { isRandom: true, readPercent: 100 }],
  ["randwrite", { isRandom: true, readPercent: 0 }],
  ["rw", { isRandom: false, readPercent: -1 }],
  ["readwrite", { isRandom: false, readPercent: -1 }],
  ["randrw", { isRandom: true, readPercent: -1 }],
]);

/**
 * Reads a job file.
 *
 * @param file - its name, for messages
 * @param only - names of the sections to run, as fio's `--section`; all without it
 * @throws StackError `fio/…` with file, line and column
 */
export function fioJobs(text: string, file: string, only?: readonly string[]): FioWorkload {
  const warnings: JobWarning[] = [];
  const groups: FioJob[][] = [];
  const globals: JobOption[] = [];
  const names = new Set<string>();
  let processes = 0;
  for (const section of jobSections(text, file)) {
    if (section.name === "global") {
      globals.push(...section.options);
      continue;
    }
    names.add(section.name);
    if (only !== undefined && !only.includes(section.name)) continue;
    const reader = new JobReader(section, globals, warnings);
    const job = reader.read();
    processes += job.processes;
    if (processes > PROCESSES_MAX) {
      const message = `The jobs have more than ${PROCESSES_MAX} processes`;
      throw problem("too-many-processes", message, section.at);
    }
    const isAlone = groups.length === 0 || reader.isOn("stonewall");
    if (isAlone) groups.push([job]);
    else groups.at(-1)!.push(job);
  }
  const missing = only?.find((name) => !names.has(name));
  if (missing !== undefined) {
    const message = `The file has no section ${shown(missing)}`;
    const hint = `its sections are ${[...names].slice(0, 20).map(shown).join(", ")}`;
    throw problem("no-such-section", message, { file, line: 1 }, names.size === 0 ? {} : { hint });
  }
  if (groups.length === 0) {
    throw problem(
      "no-job",
      "The file holds no job to run",
      { file, line: 1 },
      {
        hint: "a job is a section of any name but [global]",
      },
    );
  }
  return { groups, warnings };
}

/** Reads one section; later options win over earlier ones. */
class JobReader {
  readonly #section: JobSection;
  readonly #options = new Map<ModelledOption, JobOption>();
  readonly #warnings: JobWarning[];
  #kiloBase = 1024;

  constructor(section: JobSection, globals: readonly JobOption[], warnings: JobWarning[]) {
    this.#section = section;
    this.#warnings = warnings;
    for (const option of [...globals, ...section.options]) this.#take(option);
    const base = this.#options.get("kb_base");
    if (base?.value === "1000") this.#kiloBase = 1000;
  }

  read(): FioJob {
    const { name, at } = this.#section;
    const { isRandom, readPercent } = this.#pattern();
    const [readBlocks, writeBlocks] = this.#blocks();
    const isTimeBased = this.isOn("time_based");
    const runtimeUs = this.#duration("runtime");
    if (isTimeBased && (runtimeUs ?? 0) === 0) {
      throw problem("no-runtime", `The job ${name} is time_based and has no runtime`, at);
    }
    return {
      name,
      at,
      isRandom,
      readPercent,
      readBlocks,
      writeBlocks,
      sizeBytes: this.#size("size"),
      ioBytes: this.#size("io_size"),
      depth: this.#depth(),
      processes: this.#count("numjobs", 1, 1, PROCESSES_MAX),
      runtimeUs: runtimeUs === 0 ? null : runtimeUs,
      rampUs: this.#duration("ramp_time") ?? 0,
      isTimeBased,
      thinkUs: this.#thinkUs(),
      thinkBlocks: this.#count("thinktime_blocks", 1, 1, 2 ** 31 - 1),
      rateIops: this.#rate(),
      filename: this.#options.get("filename")?.value ?? null,
    };
  }

  /** Whether a switch is on. */
  isOn(name: ModelledOption): boolean {
    const option = this.#options.get(name);
    return option !== undefined && option.value !== "0";
  }

  #take(option: JobOption): void {
    const kind = classOfOption(option.name);
    if (kind === null) {
      const similar = similarOptions(option.name);
      const hint = similar.length === 0 ? "" : `; did you mean ${similar.join(", ")}?`;
      this.#warn("unknown-option", `${shown(option.name)} is no option known here${hint}`, option);
    } else if (kind.kind === "ignored") {
      this.#warn("ignored-option", `${option.name} has no effect: ${kind.why}`, option);
    } else if (kind.kind === "modelled") {
      this.#options.set(kind.name, option);
    }
  }

  #warn(code: string, message: string, { at }: Pick<JobOption, "at">): void {
    // An option of [global] counts for every job and is told of once.
    if (this.#warnings.some((known) => known.at === at && known.code === `fio/${code}`)) return;
    this.#warnings.push({ code: `fio/${code}`, message, at });
  }

  #pattern(): { isRandom: boolean; readPercent: number } {
    const option = this.#options.get("rw");
    if (option === undefined) return { isRandom: false, readPercent: 100 };
    // What follows a colon says how sequential runs are laid out.
    const [name] = this.#text(option).split(":");
    const pattern = patterns.get(name!);
    if (pattern === undefined) {
      const message = `rw has no pattern that can be simulated: ${shown(name!)}`;
      const hint = `known are ${[...patterns.keys()].join(", ")}`;
      throw problem("bad-pattern", message, option.valueAt, { hint });
    }
    if (pattern.readPercent >= 0) return pattern;
    const write = this.#options.get("rwmixwrite");
    const read = this.#options.get("rwmixread");
    // Of the two, the one given last wins; of equal lines, the one further right cannot be.
    const isByWrite = write !== undefined && (read === undefined || isAfter(write.at, read.at));
    const readPercent = isByWrite
      ? 100 - this.#count("rwmixwrite", 50, 0, 100)
      : this.#count("rwmixread", 50, 0, 100);
    return { isRandom: pattern.isRandom, readPercent };
  }

  /** Block sizes of reads and writes. */
  #blocks(): [BlockShare[], BlockShare[]] {
    const range = this.#options.get("bsrange");
    if (range !== undefined) {
      throw problem("bsrange", "a range of block sizes is not simulated", range.at, {
        hint: "write the sizes with their shares: bssplit=4k/50:64k/50",
      });
    }
    const split = this.#options.get("bssplit");
    const [read, write] = this.#perDirection(split, (option, text) =>
      splitValue(option, text, this.#kiloBase),
    );
    if (read !== null) return [this.#positive(read, split!), this.#positive(write ?? read, split!)];
    const option = this.#options.get("bs");
    const [readSize, writeSize] = this.#perDirection(option, (given, text) => [
      { bytes: sizeValue(given, text, this.#kiloBase), percent: 100 },
    ]);
    const usual = [{ bytes: 4096, percent: 100 }];
    const reads = readSize ?? usual;
    const writes = writeSize ?? usual;
    if (option === undefined) return [reads, writes];
    return [this.#positive(reads, option), this.#positive(writes, option)];
  }

  /** A value for reads and one for writes, divided by a comma; one alone counts for both. */
  #perDirection<T>(
    option: JobOption | undefined,
    parse: (option: JobOption, text: string) => T,
  ): [T | null, T | null] {
    if (option === undefined) return [null, null];
    const parts = this.#text(option).split(",");
    const values = parts.map((part) => (part === "" ? null : parse(option, part)));
    return parts.length === 1 ? [values[0]!, values[0]!] : [values[0]!, values[1]!];
  }

  #positive(blocks: BlockShare[], option: JobOption): BlockShare[] {
    if (blocks.every(({ bytes }) => bytes >= 512 && bytes <= 2 ** 30)) return blocks;
    const message = `${option.name} gives a block that is not between 512 bytes and 1g`;
    throw problem("out-of-range", message, option.valueAt);
  }

  #depth(): number {
    const depth = this.#count("iodepth", 1, 1, IO_DEPTH_MAX);
    const name = this.#engine();
    if (depth > 1 && !asyncEngines.has(name)) {
      const option = this.#options.get("iodepth")!;
      const message = `iodepth=${depth} has no effect: the engine, ${name}, waits for each request`;
      this.#warn("synchronous", message, option);
      return 1;
    }
    return depth;
  }

  /** The engine; one that does something else than block I/O is refused. */
  #engine(): string {
    const option = this.#options.get("ioengine");
    const name = option === undefined ? "psync" : this.#text(option);
    if (!asyncEngines.has(name) && !syncEngines.has(name)) {
      const message = `ioengine has no engine that can be simulated: ${shown(name)}`;
      const hint = `known are ${[...asyncEngines, ...syncEngines].join(", ")}`;
      throw problem("bad-engine", message, option!.valueAt, { hint });
    }
    if (!this.isOn("direct") && !isOff(this.#options.get("buffered"))) {
      const at = this.#options.get("direct")?.at ?? option?.at ?? this.#section.at;
      const message = `${name} without direct=1 goes through the page cache in fio`;
      this.#warn("buffered", `${message}; it is simulated as direct`, { at });
    }
    return name;
  }

  #rate(): number | null {
    const option = this.#options.get("rate_iops");
    if (option === undefined) return null;
    const [first] = this.#text(option).split(",");
    return countValue(option, first!, 1, 1e9);
  }

  #size(name: "size" | "io_size"): number | null {
    const option = this.#options.get(name);
    if (option === undefined) return null;
    const text = this.#text(option);
    // A share of a disk whose size nobody knows.
    if (/^\d+%$/.test(text)) return null;
    return sizeValue(option, text, this.#kiloBase);
  }

  #duration(name: ModelledOption): number | null {
    const option = this.#options.get(name);
    return option === undefined ? null : durationValue(option, this.#text(option));
  }

  #thinkUs(): number {
    const option = this.#options.get("thinktime");
    if (option === undefined) return 0;
    const us = durationValue(option, this.#text(option), "us");
    if (us <= THINK_US_MAX) return us;
    const message = `thinktime is at most ${THINK_US_MAX} us, not ${us}`;
    throw problem("out-of-range", message, option.valueAt);
  }

  #count(name: ModelledOption, usual: number, min: number, max: number): number {
    const option = this.#options.get(name);
    return option === undefined ? usual : countValue(option, this.#text(option), min, max);
  }

  #text(option: JobOption): string {
    if (option.value !== null && option.value !== "") return option.value;
    throw problem("no-value", `${option.name} has no value`, option.at);
  }
}

function isOff(option: JobOption | undefined): boolean {
  return option?.value === "0";
}

function isAfter(a: Position, b: Position): boolean {
  return (a.line ?? 0) > (b.line ?? 0);
}
