/**
 * The replay of one recording: reads it once, runs its workload through the real stack under each
 * policy in step, and says what each cost and left open.
 */

import type { Policy } from "../../dma/policy.ts";
import { StackError } from "../../errors.ts";
import { PAGE_BYTES } from "../../units.ts";
import type { RecordingKind } from "../kinds.ts";
import { recognise } from "../recognise.ts";
import type { Diagnostic } from "../verify/result.ts";
import { buildStack } from "./build-stack.ts";
import { diagnosticsOf } from "./diagnostics.ts";
import { CPUS_MAX, ReplayEngine } from "./engine.ts";
import { PolicyRun } from "./policy-run.ts";
import type { IommuKind, PolicyResult, RecordingReplay, WorkloadFacts } from "./result.ts";
import { RunMeter } from "./run-meter.ts";
import { type Unjudged, verdictOf } from "./verdict.ts";
import { WorkloadReader } from "./workload-reader.ts";

/** CPUs assumed where a recording does not say how many there are. */
const CPUS_DEFAULT = 64;

/** How to replay. */
export interface ReplayOptions {
  readonly policies: readonly Policy[];
  readonly iommu: IommuKind;
  /** Slots of a flush queue; Linux's 256 per CPU or 32768 in one by default. */
  readonly flushQueueSlots?: number;
  /** Time to a flush; Linux's 10 ms per CPU or 1 s in one by default. */
  readonly flushTimeoutNs?: number;
  /** Operations that wait at most for the unmap that tells their size: see `AllocationOptions`. */
  readonly window?: number;
}

/** A replay's result and what there is to say about its recording. */
export interface ReplayOutcome {
  readonly replay: RecordingReplay;
  readonly diagnostics: readonly Diagnostic[];
}

/**
 * Replays one recording.
 *
 * @param file - its name, for messages
 * @param chunks - its bytes, unpacked
 * @param progress - told now and then how many events were read
 * @throws StackError when it is no recording, or holds nothing to replay
 */
export async function replayRecording(
  file: string,
  chunks: AsyncIterable<Uint8Array>,
  options: ReplayOptions,
  progress: (events: number) => void = () => {},
): Promise<ReplayOutcome> {
  const recording = await recognise(file, chunks);
  const session = new ReplaySession(file, recording.kind, options);
  for await (const chunk of recording.chunks) {
    session.push(chunk);
    progress(session.events);
  }
  return session.end();
}

/** One recording on its way through the runs: call `push` for each chunk and `end` once. */
export class ReplaySession {
  readonly #file: string;
  readonly #kind: RecordingKind;
  readonly #options: ReplayOptions;
  readonly #reader: WorkloadReader;
  #runs: PolicyRun[] = [];
  #engine: ReplayEngine | null = null;

  constructor(file: string, kind: RecordingKind, options: ReplayOptions) {
    this.#file = file;
    this.#kind = kind;
    this.#options = options;
    this.#reader = new WorkloadReader({
      kind,
      file,
      sink: (operation) => (this.#engine ?? this.#start()).operation(operation),
      ...(options.window === undefined ? {} : { window: options.window }),
    });
  }

  /** Events read so far. */
  get events(): number {
    return this.#reader.notes.events;
  }

  push(chunk: Uint8Array): void {
    this.#reader.push(chunk);
  }

  /** @throws StackError when the recording held nothing to replay */
  end(): ReplayOutcome {
    this.#reader.end();
    const engine = this.#engine;
    if (engine === null) throw this.#nothing();
    engine.end();
    const knowsTime = this.#reader.knowsTime;
    const span = { durationNs: engine.clock.nowNs, knowsTime };
    const unjudged = this.#runs.map((run) => run.result(span, this.#options.iommu));
    return {
      replay: {
        file: this.#file,
        kind: this.#kind.name,
        iommu: this.#options.iommu,
        workload: this.#facts(engine),
        policies: this.#judge(unjudged),
      },
      diagnostics: diagnosticsOf(this.#file, this.#reader),
    };
  }

  /** Builds the runs at the first operation: by then a header has told the number of CPUs. */
  #start(): ReplayEngine {
    const reader = this.#reader;
    const stated = reader.cpusStated === 0 ? CPUS_DEFAULT : reader.cpusStated;
    const cpus = reader.knowsCpus ? Math.min(stated, CPUS_MAX) : 1;
    const { policies, iommu, flushQueueSlots, flushTimeoutNs } = this.#options;
    this.#runs = policies.map((policy) => {
      const meter = new RunMeter();
      const stack = buildStack(policy, {
        iommu,
        cpus,
        meter,
        ...(flushQueueSlots === undefined ? {} : { flushQueueSlots }),
        ...(flushTimeoutNs === undefined ? {} : { flushTimeoutNs }),
      });
      return new PolicyRun(policy, stack, meter);
    });
    this.#engine = new ReplayEngine({
      runs: this.#runs,
      cpus,
      knowsCpus: reader.knowsCpus,
      joinPieces: this.#kind.family === "qemu-log",
    });
    return this.#engine;
  }

  #judge(unjudged: readonly Unjudged[]): PolicyResult[] {
    const strict = unjudged.find(({ policy }) => policy === "strict") ?? null;
    const basis = { iommu: this.#options.iommu, strict };
    return unjudged.map((result, index) => ({
      ...result,
      verdict: verdictOf(this.#options.policies[index]!, result, basis),
    }));
  }

  #facts(engine: ReplayEngine): WorkloadFacts {
    const { notes, allocations, knowsTime, knowsCpus } = this.#reader;
    const { counts } = allocations;
    return {
      lines: notes.lines,
      events: notes.events,
      durationNs: knowsTime ? engine.clock.nowNs : null,
      cpus: knowsCpus ? engine.cpusSeen : null,
      mapEvents: counts.maps,
      unmapEvents: counts.unmaps,
      allocations: engine.allocations,
      frees: engine.frees,
      inferred: engine.inferred,
      liveAtEnd: engine.allocations + engine.inferred - engine.frees,
      peakLiveBytes: engine.livePagesPeak * PAGE_BYTES,
      bytesMean:
        engine.allocations === 0 ? null : (engine.allocatedPages / engine.allocations) * PAGE_BYTES,
      scattered: engine.scattered,
      lostEvents: notes.lostEvents,
      lostMarkers: notes.lostMarkers,
    };
  }

  /** Why there is nothing to replay: the first bad line, or that no line maps anything. */
  #nothing(): StackError {
    const remarks = diagnosticsOf(this.#file, this.#reader);
    const bad = remarks.find(({ severity, line }) => severity !== "note" && line !== undefined);
    return new StackError({
      code: "replay/no-dma",
      kind: "input",
      message:
        bad === undefined
          ? "The recording holds no DMA mapping: no iommu:map and no iommu:unmap event"
          : `${bad.message}; no other event maps or unmaps anything`,
      at: bad?.line === undefined ? { file: this.#file } : { file: this.#file, line: bad.line },
      hint: "record with `trace-cmd record -e iommu:map -e iommu:unmap`, or by tracefs' events/iommu",
    });
  }
}
