/**
 * Makes traces of boots that never happened, with a schedule that is known to exist: CPUs, tasks,
 * interrupts and the flush timer run in small steps on our own allocator and flush queue, and only
 * the trace events are written down.
 *
 * A step advances the clock of its CPU; the CPU that is furthest behind goes next, so that steps of
 * different CPUs interleave anywhere. Interrupts come between any two steps of a task, tasks are
 * preempted and migrate between allocation and event, the flush takes a while to finish.
 */
import { FlushQueue } from "../../dma/flush-queue.ts";
import { IovaDomain } from "../../dma/iova-domain.ts";
import { Random } from "../../random.ts";

/** What is made. */
export interface SyntheticBootOptions {
  readonly seed: number;
  readonly cpus: number;
  readonly lazy: boolean;
  readonly requests: number;
  readonly tasks?: number;
  /** Requests that a task has in flight at most; drawn for each task by default. */
  readonly depth?: number;
  /** Sizes in pages; drawn for each task by default. */
  readonly pages?: readonly number[];
  /** Stretches the time between requests. */
  readonly pace?: number;
  /** Mean microseconds that a flush takes. */
  readonly flushUs?: number;
  /** In a thousand steps: how often a task is preempted, how often it migrates. */
  readonly preemptions?: number;
  readonly migrations?: number;
  /** In a hundred interrupts: how many are soft ones. */
  readonly softIrqs?: number;
  /** In a thousand: pauses of a virtual CPU between trace event and effect. */
  readonly stalls?: number;
  readonly reserved?: readonly (readonly [number, number])[];
  /** Hears what the trace does not show. */
  readonly observe?: (us: number, text: string) => void;
}

/** What came out. */
export interface SyntheticBoot {
  readonly text: string;
  readonly allocations: number;
  /** Flushes by the timer and by full rings. */
  readonly flushes: number;
  readonly overflows: number;
  /** Magazines that moved to and from the depot. */
  readonly depotMoves: number;
}

type Steps = Generator<number, void, undefined>;

interface Task {
  readonly name: string;
  readonly pid: number;
  readonly depth: number;
  readonly batch: number;
  readonly pages: readonly number[];
  readonly latencyUs: number;
  cpu: number;
  inFlight: number;
  blocked: boolean;
  wakeAt: number;
  steps: Steps;
}

interface Request {
  readonly pfn: number;
  readonly pages: number;
  readonly task: Task;
  readonly doneUs: number;
}

interface Frame {
  readonly level: 0 | 1 | 2;
  readonly steps: Steps;
  readonly task: Task | null;
}

class Cpu {
  readonly index: number;
  nowUs: number;
  frames: Frame[] = [];
  completions: Request[] = [];
  timersUs: number[] = [];
  runnable: Task[] = [];
  sliceEndUs = 0;

  constructor(index: number, nowUs: number) {
    this.index = index;
    this.nowUs = nowUs;
  }

  get nextUs(): number {
    if (this.frames.length > 0 || this.runnable.length > 0) return this.nowUs;
    let next = Number.POSITIVE_INFINITY;
    for (const { doneUs } of this.completions) next = Math.min(next, doneUs);
    for (const dueUs of this.timersUs) next = Math.min(next, dueUs);
    return Math.max(this.nowUs, next);
  }
}

/** Windows of a q35 machine, MSI included. */
export const Q35_WINDOWS: readonly (readonly [number, number])[] = [
  [0xa0, 0xbf],
  [0x8_0000, 0xa_ffff],
  [0xc_0000, 0xf_ebff],
  [0xf_ee00, 0xf_eeff],
];

const START_US = 4_500_000;
const TICK_US = 4000;
const SLICE_US = 3000;
const STEPS_MAX = 5_000_000;
const sizeSets: readonly (readonly number[])[] = [
  [1],
  [16],
  [1, 16],
  [1, 2, 3, 4, 16],
  [16, 17, 31, 32],
];

/** Makes a trace. The same options give the same text. */
export function syntheticBoot(options: SyntheticBootOptions): SyntheticBoot {
  return new Machine(options).run();
}

class Machine {
  readonly #options: SyntheticBootOptions;
  readonly #random: Random;
  readonly #cpus: Cpu[];
  readonly #domain: IovaDomain;
  readonly #queue: FlushQueue;
  readonly #lines: { us: number; text: string }[] = [];
  #armedOn = 0;
  #requestsLeft: number;
  #allocations = 0;

  constructor(options: SyntheticBootOptions) {
    this.#options = options;
    this.#random = new Random(options.seed);
    this.#requestsLeft = options.requests;
    this.#cpus = Array.from({ length: options.cpus }, (_, index) => new Cpu(index, START_US));
    this.#domain = new IovaDomain({ cpus: options.cpus });
    for (const [first, last] of options.reserved ?? Q35_WINDOWS) this.#domain.reserve(first, last);
    this.#queue = new FlushQueue({
      kind: "per-cpu",
      cpus: options.cpus,
      sink: {
        flushIotlbAll() {},
        release: (pfn, pages, _tables, cpu, nowMs) => this.#domain.free(pfn, pages, cpu, nowMs),
      },
      timer: { arm: () => this.#armTimer() },
    });
  }

  run(): SyntheticBoot {
    this.#probe();
    const count = this.#options.tasks ?? 8;
    for (let index = 0; index < count; index += 1) this.#startTask(index);
    for (let steps = 0; steps < STEPS_MAX; steps += 1) {
      let cpu = this.#cpus[0]!;
      for (const other of this.#cpus) if (other.nextUs < cpu.nextUs) cpu = other;
      if (cpu.nextUs === Number.POSITIVE_INFINITY) break;
      cpu.nowUs = cpu.nextUs;
      this.#advance(cpu);
    }
    const sorted = this.#lines.map((line, index) => ({ ...line, index }));
    sorted.sort((a, b) => a.us - b.us || a.index - b.index);
    const head = `# tracer: nop\n#\n# entries-in-buffer/entries-written: ${sorted.length}/${sorted.length}   #P:${this.#options.cpus}\n#\n`;
    return {
      text: `${head}${sorted.map(({ text }) => text).join("\n")}\n`,
      allocations: this.#allocations,
      flushes: this.#queue.counts.flushesTimer,
      overflows: this.#queue.counts.flushesFull,
      depotMoves: this.#domain.cache.depotMoves,
    };
  }

  /** Coherent memory of a driver, never freed. */
  #probe(): void {
    const cpu = this.#cpus[0]!;
    for (const pages of [1, 1, 4, 16, 4, 16]) {
      const pfn = this.#alloc(pages, 0);
      cpu.nowUs += 300;
      this.#write(cpu, "kworker/u4:0-12", ".....", mapText(pfn, pages, 0x3fe2 + pfn));
    }
    for (const other of this.#cpus) other.nowUs = cpu.nowUs + 100;
  }

  #startTask(index: number): void {
    const random = this.#random;
    const task: Task = {
      name: `fio-${100 + index}`,
      pid: 100 + index,
      depth: this.#options.depth ?? 1 + random.below(32),
      batch: 1 + random.below(16),
      pages: this.#options.pages ?? sizeSets[random.below(sizeSets.length)]!,
      latencyUs: 100 + this.#exponential(1500),
      cpu: index % this.#cpus.length,
      inFlight: 0,
      blocked: false,
      wakeAt: 0,
      steps: idle(),
    };
    task.steps = this.#work(task);
    this.#cpus[task.cpu]!.runnable.push(task);
  }

  /** One step of one CPU. */
  #advance(cpu: Cpu): void {
    const random = this.#random;
    const top = cpu.frames.at(-1) ?? null;
    const level = top === null ? 0 : top.level;
    if (level < 2 && (top === null || random.chance(7, 10)) && this.#interrupt(cpu, level)) return;
    if (level < 1) {
      const due = cpu.timersUs.findIndex((us) => us <= cpu.nowUs);
      if (due >= 0) {
        cpu.timersUs.splice(due, 1);
        cpu.frames.push({ level: 1, steps: this.#flush(cpu), task: null });
        return;
      }
    }
    if (top === null) {
      const task = cpu.runnable.shift();
      if (task === undefined) return;
      cpu.frames.push({ level: 0, steps: task.steps, task });
      cpu.sliceEndUs = cpu.nowUs + SLICE_US;
      return;
    }
    const step = top.steps.next();
    if (step.done === true) {
      cpu.frames.pop();
      return;
    }
    cpu.nowUs += Math.max(0, step.value);
    const { task } = top;
    if (task === null) return;
    if (step.value < 0) {
      cpu.frames.pop();
      if (task.inFlight < task.wakeAt) {
        task.blocked = false;
        cpu.runnable.push(task);
      }
      return;
    }
    this.#schedule(cpu, task);
  }

  /** Completions that are due come as an interrupt. */
  #interrupt(cpu: Cpu, level: number): boolean {
    const due = cpu.completions.filter(({ doneUs }) => doneUs <= cpu.nowUs);
    if (due.length === 0) return false;
    cpu.completions = cpu.completions.filter(({ doneUs }) => doneUs > cpu.nowUs);
    due.sort((a, b) => a.doneUs - b.doneUs);
    const isSoft = level === 0 && this.#random.chance(this.#options.softIrqs ?? 5, 100);
    cpu.frames.push({ level: isSoft ? 1 : 2, steps: this.#complete(cpu, due), task: null });
    return true;
  }

  /** Preempts or migrates the task that runs. */
  #schedule(cpu: Cpu, task: Task): void {
    const random = this.#random;
    const isOver = cpu.nowUs > cpu.sliceEndUs;
    if (
      cpu.runnable.length > 0 &&
      (isOver || random.chance(this.#options.preemptions ?? 3, 1000))
    ) {
      cpu.frames.pop();
      cpu.runnable.push(task);
    } else if (this.#cpus.length > 1 && random.chance(this.#options.migrations ?? 1, 2000)) {
      cpu.frames.pop();
      const target = this.#cpus[random.below(this.#cpus.length)]!;
      if (target.frames.length === 0 && target.runnable.length === 0) {
        target.nowUs = Math.max(target.nowUs, cpu.nowUs);
      }
      task.cpu = target.index;
      target.runnable.push(task);
    }
  }

  *#work(task: Task): Steps {
    const random = this.#random;
    while (this.#requestsLeft > 0) {
      const batch = 1 + random.below(task.batch);
      for (let count = 0; count < batch && this.#requestsLeft > 0; count += 1) {
        this.#requestsLeft -= 1;
        yield* this.#submit(task);
      }
      if (task.inFlight >= task.depth) {
        task.blocked = true;
        task.wakeAt = 1 + random.below(task.depth);
        yield -1;
      } else if (random.chance(1, 10)) {
        yield 5 + this.#exponential(2000);
      }
    }
  }

  *#submit(task: Task): Steps {
    const random = this.#random;
    const pages = task.pages[random.below(task.pages.length)]!;
    yield 5 + this.#exponential(10);
    const pfn = this.#alloc(pages, task.cpu);
    this.#observe(this.#cpus[task.cpu]!, `${task.name} takes ${pfn.toString(16)} (${pages})`);
    yield 1 + this.#exponential(4) + this.#stall(300);
    for (let done = 0; done < pages; ) {
      const rest = pages - done;
      const segment = pages > 1 && random.chance(1, 10) ? 1 + random.below(rest) : rest;
      const cpu = this.#cpus[task.cpu]!;
      const phys = 0x5_0000 + random.below(0xffff);
      this.#write(cpu, task.name, flagsOf(cpu), mapText(pfn + done, segment, phys));
      done += segment;
      yield 3 + this.#exponential(5);
    }
    task.inFlight += 1;
    const doneUs = this.#cpus[task.cpu]!.nowUs + 80 + this.#exponential(task.latencyUs);
    this.#cpus[task.cpu]!.completions.push({ pfn, pages, task, doneUs });
    yield (10 + this.#exponential(20)) * (this.#options.pace ?? 1);
  }

  *#complete(cpu: Cpu, requests: readonly Request[]): Steps {
    yield 2;
    for (const { pfn, pages, task } of requests) {
      this.#write(cpu, whoRuns(cpu), flagsOf(cpu), unmapText(pfn, pages));
      yield 1 + this.#exponential(3) + this.#stall(200);
      this.#free(cpu, pfn, pages);
      yield 1 + this.#exponential(6);
      task.inFlight -= 1;
      this.#wake(task, cpu);
    }
  }

  *#flush(cpu: Cpu): Steps {
    this.#queue.clearTimer();
    yield 1 + this.#exponential(2);
    this.#queue.startFlush();
    this.#observe(cpu, "flush starts");
    yield 5 + this.#exponential(this.#options.flushUs ?? 20);
    this.#queue.finishFlush("timer", cpu.nowUs / 1000);
    this.#observe(cpu, "flush finishes");
    for (let ring = 0; ring < this.#cpus.length; ring += 1) {
      yield 1 + this.#exponential(3);
      const before = this.#queue.counts.released;
      this.#queue.releaseRing(ring, cpu.index, cpu.nowUs / 1000);
      this.#observe(cpu, `ring ${ring}: ${this.#queue.counts.released - before}`);
    }
  }

  #wake(task: Task, cpu: Cpu): void {
    if (!task.blocked || task.inFlight >= task.wakeAt) return;
    task.blocked = false;
    const target = this.#cpus[task.cpu]!;
    if (target.frames.length === 0 && target.nowUs < cpu.nowUs) target.nowUs = cpu.nowUs;
    target.runnable.push(task);
  }

  #alloc(pages: number, cpu: number): number {
    this.#allocations += 1;
    return this.#domain.alloc(pages, 0xf_ffff, false, cpu);
  }

  #free(cpu: Cpu, pfn: number, pages: number): void {
    const nowMs = cpu.nowUs / 1000;
    this.#armedOn = cpu.index;
    const before = this.#queue.counts.released;
    if (this.#options.lazy) this.#queue.queue(cpu.index, pfn, pages, null, nowMs);
    const released = this.#queue.counts.released - before;
    if (released > 0) this.#observe(cpu, `${pfn.toString(16)} releases ${released}`);
    if (!this.#options.lazy) this.#domain.free(pfn, pages, cpu.index, nowMs);
  }

  /** 10 ms are 3 ticks of 4 ms, and the timer wheel adds one. */
  #armTimer(): void {
    const random = this.#random;
    const cpu = this.#cpus[this.#armedOn]!;
    const dueUs = (Math.floor(cpu.nowUs / TICK_US) + 4) * TICK_US;
    const lateUs = random.chance(1, 2) ? random.below(300) : this.#exponential(3000);
    const target = random.chance(85, 100) ? cpu : this.#cpus[random.below(this.#cpus.length)]!;
    target.timersUs.push(Math.max(dueUs + lateUs, target.nowUs));
  }

  #observe(cpu: Cpu, text: string): void {
    this.#options.observe?.(cpu.nowUs, `cpu${cpu.index} ${text}`);
  }

  #stall(meanUs: number): number {
    return this.#random.chance(this.#options.stalls ?? 2, 1000) ? this.#exponential(meanUs) : 0;
  }

  #exponential(mean: number): number {
    return -Math.log(1 - this.#random.below(2 ** 30) / 2 ** 30) * mean;
  }

  #write(cpu: Cpu, who: string, flags: string, text: string): void {
    const time = (Math.floor(cpu.nowUs) / 1e6).toFixed(6).padStart(12);
    const where = `[${String(cpu.index).padStart(3, "0")}] ${flags} ${time}`;
    this.#lines.push({
      us: Math.floor(cpu.nowUs),
      text: `${who.padStart(16)}     ${where}: ${text}`,
    });
  }
}

function* idle(): Steps {}

function whoRuns(cpu: Cpu): string {
  for (const { task } of cpu.frames) if (task !== null) return task.name;
  return "<idle>-0";
}

function flagsOf(cpu: Cpu): string {
  const level = cpu.frames.at(-1)?.level ?? 0;
  const inSoft = cpu.frames.some((frame) => frame.level === 1);
  if (level === 2) return inSoft ? "d.H.." : "d.h..";
  return level === 1 ? "..s.." : ".....";
}

function mapText(pfn: number, pages: number, phys: number): string {
  return `map: IOMMU: iova=${address(pfn)} - ${address(pfn + pages)} paddr=${address(phys)} size=${pages * 4096}`;
}

function unmapText(pfn: number, pages: number): string {
  const bytes = pages * 4096;
  return `unmap: IOMMU: iova=${address(pfn)} - ${address(pfn + pages)} size=${bytes} unmapped_size=${bytes}`;
}

function address(pfn: number): string {
  return `0x${(pfn * 4096).toString(16).padStart(16, "0")}`;
}
