/**
 * The NVMe controller: its registers, its life (enable, reset, shutdown), and turns of work in which
 * it takes commands off submission queues and completes them.
 *
 * Source: NVM Express base specification 1.4, sections 3, 4.1 and 7.6. A ring that memory refuses
 * does not stop the controller at once: a virtual machine's monitor unmaps and maps its memory in
 * one batch of messages. The queue waits until memory has changed or the driver rings again; only
 * when it is refused then too, the controller says fatal status.
 * Speed: bench/nvme.bench.ts.
 */
import { AdminCommands } from "./admin.ts";
import { IoCommands } from "./io.ts";
import { journalWords } from "./journal.ts";
import { FLUSH, type Operation } from "./operations.ts";
import {
  CC_ENABLE,
  Csts,
  ErrorEvent,
  EventType,
  Feature,
  Register,
  Sqe,
  Status,
} from "./protocol.ts";
import { completeAtHead, type SubmissionQueue } from "./queues.ts";
import { Registers } from "./registers.ts";
import { reviveQueues, reviveSlots } from "./revive.ts";
import { checkedState, type NvmeState, type Outcome } from "./saved-state.ts";
import { completeSettings, type NvmeConfig, type NvmeSettings } from "./settings.ts";
import { ControllerState, PENDING } from "./state.ts";

/** Commands and bytes that one turn takes at most; the last command may go beyond the bytes. */
const TURN_COMMANDS = 64;
const TURN_BYTES = 2 ** 22;
/** CC fields that are not entry sizes or shutdown: command set, page size, arbitration. */
const CC_MODES = 0x3ff0;
const SHUTDOWN = 0xc000;
const SHUTDOWN_NORMAL = 0x4000;
const SHUTDOWN_STATUS = Csts.SHUTDOWN_OCCURRING | Csts.SHUTDOWN_COMPLETE;
/** Arbitration burst without a limit. */
const BURST_UNLIMITED = 7;

/** The controller, without the PCI function around it. */
export class NvmeController {
  readonly config: NvmeConfig;
  /** Changes with everything that {@link save} holds but the words. */
  revision = 0;
  readonly #state: ControllerState;
  readonly #admin: AdminCommands;
  readonly #io: IoCommands;
  readonly #registers = new Registers();
  #isStarting = false;
  #shutdown: Operation | null = null;
  /** Doorbell writes so far. */
  #kicks = 0;
  /** Submission queue that is next. */
  #turn = 0;
  #bytesLeft = 0;
  #outcome: Outcome | null = null;

  constructor(settings: NvmeSettings) {
    this.config = completeSettings(settings);
    this.#state = new ControllerState(this.config);
    this.#admin = new AdminCommands(this.#state);
    this.#io = new IoCommands(this.#state);
  }

  /** A register word; `offset` is a multiple of 4. */
  readWord(offset: number): number {
    return this.#registers.read(offset);
  }

  /** Writes a register word below the doorbells. */
  writeWord(offset: number, value: number): void {
    const before = this.#registers.cc;
    if (!this.#registers.write(offset, value)) return;
    if (offset === Register.CC) this.#configure(before);
    this.#keep(null);
  }

  /**
   * A doorbell is written: the position is noted, the work waits for {@link work}.
   *
   * @param index - even for submission queues, odd for completion queues
   */
  ring(index: number, value: number): void {
    if ((this.#registers.csts & Csts.RDY) === 0) return;
    this.#kicks += 1;
    const id = index >> 1;
    const position = value & 0xffff;
    const { submissions, completions } = this.#state;
    const result =
      (index & 1) === 0 ? submissions[id]?.ringTail(position) : completions[id]?.ringHead(position);
    if (result === undefined) this.#reportDoorbell(ErrorEvent.INVALID_DOORBELL);
    else if (result === "out-of-range") this.#reportDoorbell(ErrorEvent.INVALID_DOORBELL_VALUE);
  }

  /** Does a turn of work. @returns whether there is more */
  work(): boolean {
    const state = this.#state;
    this.#continueLife();
    const hasMore = this.#continueOperations();
    if (!this.#isRunning) {
      if (state.mustKeep) this.#keep(null);
      return hasMore;
    }
    for (const queue of state.completions) if (queue?.mustRepeat) queue.isReachable();
    state.slots.post();
    const isBusy = this.#takeCommands() || hasMore;
    this.#admin.continueDeletions();
    if (state.mustKeep) this.#keep(null);
    const isTold =
      state.events.isWaiting && state.events.deliver(state.slots, this.#admin.eventRequests);
    state.slots.post();
    // Told twice is better than never: what was told is forgotten afterwards.
    if (isTold) this.#keep(null);
    this.#signal();
    return isBusy && this.#isRunning;
  }

  /** A reset of the machine: everything as after power-on. */
  reset(): void {
    this.#registers.reset();
    this.#state.logs.clearErrors();
    this.#resetController();
    this.#keep(null);
  }

  /** The state as plain data, the journal's words included. */
  save(): NvmeState {
    const { words } = this.#state.journal;
    const count = journalWords(this.config.queues);
    return { ...this.saveRest(), words: Array.from({ length: count }, (_, at) => words[at]!) };
  }

  /**
   * Takes over a state. Without words in it, those of the journal count: they were changed after
   * the state was kept, and journal.ts says why they are right.
   *
   * @throws StackError `pci/state`
   */
  restore(value: unknown): void {
    const count = journalWords(this.config.queues);
    const saved = checkedState(value, this.config.queues, count);
    const state = this.#state;
    const { words } = state.journal;
    if (saved.words !== undefined)
      for (let at = 0; at < count; at += 1) words[at] = saved.words[at]!;
    this.#registers.restore(saved.registers);
    this.#isStarting = saved.isStarting;
    state.features.restore(saved.features);
    state.events.restore(saved.events);
    Object.assign(state.logs.health, saved.health);
    state.logs.errorCount = saved.errorCount;
    for (const place of saved.completions) state.addCompletion(place);
    for (const place of saved.submissions) state.addSubmission(place);
    reviveQueues(state);
    const admin = state.submissions[0] ?? null;
    const isMet = admin !== null && saved.outcome?.count === admin.nextCount;
    this.#outcome = isMet ? saved.outcome : null;
    reviveSlots(state, this.#io);
    if ((this.#registers.csts & Csts.SHUTDOWN_OCCURRING) !== 0)
      this.#shutdown = state.operations.begin(FLUSH);
  }

  get #isRunning(): boolean {
    return (this.#registers.csts & (Csts.RDY | Csts.CFS | SHUTDOWN_STATUS)) === Csts.RDY;
  }

  /** CC was written. @param before - what it was */
  #configure(before: number): void {
    const { cc } = this.#registers;
    const isEnabled = (cc & CC_ENABLE) !== 0;
    if ((before & CC_ENABLE) !== 0 && !isEnabled) this.#resetController();
    else if ((before & CC_ENABLE) === 0 && isEnabled) this.#enable();
    if ((cc & SHUTDOWN) === 0) {
      this.#registers.csts &= ~SHUTDOWN_STATUS;
      this.#shutdown = null;
    } else if ((before & SHUTDOWN) === 0) this.#shutDown((cc & SHUTDOWN) === SHUTDOWN_NORMAL);
  }

  /** CC.EN becomes 0: queues, unfinished commands and features are gone; AQA, ASQ, ACQ stay. */
  #resetController(): void {
    this.#registers.csts = 0;
    this.#isStarting = false;
    this.#shutdown = null;
    this.#outcome = null;
    this.#turn = 0;
    // First what the words belong to, so that no crash leaves queues with foreign positions.
    this.#state.forgetQueues();
    this.#keep(null);
    this.#state.journal.clear();
  }

  #enable(): void {
    const { submission, completion } = this.#registers.adminQueues;
    if ((this.#registers.cc & CC_MODES) !== 0 || submission.size < 2 || completion.size < 2) {
      this.#registers.csts |= Csts.CFS;
      return;
    }
    const state = this.#state;
    state.addCompletion({ id: 0, ...completion, vector: 0 }).begin();
    state.addSubmission({ id: 0, ...submission, completion: 0 }).begin();
    this.#isStarting = true;
    this.#continueLife();
  }

  #shutDown(isNormal: boolean): void {
    if (!isNormal) {
      this.#registers.csts |= Csts.SHUTDOWN_COMPLETE;
      return;
    }
    this.#registers.csts |= Csts.SHUTDOWN_OCCURRING;
    this.#shutdown = this.#state.operations.begin(FLUSH);
    this.#continueLife();
  }

  /**
   * Ready once the store is quiet: a discard of an earlier life must not fall into this one. Shut
   * down once what was written is durable.
   */
  #continueLife(): void {
    if (this.#isStarting && this.#state.operations.running === 0) {
      this.#isStarting = false;
      this.#registers.csts |= Csts.RDY;
      this.#state.mustKeep = true;
    }
    if (this.#shutdown !== null && this.#state.operations.hasEnded(this.#shutdown)) {
      this.#shutdown = null;
      this.#registers.csts = (this.#registers.csts & ~SHUTDOWN_STATUS) | Csts.SHUTDOWN_COMPLETE;
      this.#state.mustKeep = true;
    }
  }

  /** @returns whether an operation could go on at once */
  #continueOperations(): boolean {
    const { operations, slots } = this.#state;
    let isBusy = false;
    for (const slot of slots.all) {
      const { operation } = slot;
      if (operation === null || slot.isFinished) continue;
      operations.step(operation);
      if (operations.hasEnded(operation)) {
        const status = this.#state.statusOf(operation.errno);
        if (status !== Status.SUCCESS)
          this.#state.logs.noteError(slot.queue.place.id, slot.command, status);
        slots.finish(slot, status, 0);
      } else if (!operation.isRunning) isBusy = true;
    }
    return isBusy;
  }

  /** Takes commands from all queues in turns. @returns whether there may be more */
  #takeCommands(): boolean {
    const { submissions, features } = this.#state;
    const field = features.value(Feature.ARBITRATION) & 7;
    const burst = field === BURST_UNLIMITED ? TURN_COMMANDS : 1 << field;
    let left = TURN_COMMANDS;
    this.#bytesLeft = TURN_BYTES;
    for (let idle = 0; idle < submissions.length; ) {
      const queue = submissions[this.#turn]!;
      this.#turn = this.#turn + 1 === submissions.length ? 0 : this.#turn + 1;
      const taken = queue === null ? 0 : this.#takeBurst(queue, Math.min(burst, left));
      idle = taken === 0 ? idle + 1 : 0;
      left -= taken;
      if (left === 0 || this.#bytesLeft <= 0) return true;
    }
    return false;
  }

  #takeBurst(queue: SubmissionQueue, most: number): number {
    let taken = 0;
    while (taken < most && this.#bytesLeft > 0 && this.#takeCommand(queue)) taken += 1;
    return taken;
  }

  /** Takes and executes the command at a queue's head. @returns false when that cannot be now */
  #takeCommand(queue: SubmissionQueue): boolean {
    const state = this.#state;
    if (queue.isEmpty || queue.isClosing || queue.completion.isFull) return false;
    if (!state.slots.hasRoom(queue) || !this.#mayReach(queue)) return false;
    if (!queue.completion.isReachable() || !queue.fetch()) {
      this.#refuse(queue);
      return false;
    }
    queue.refusedAfter = -1;
    state.result = 0;
    const status = this.#execute(queue);
    if (status === PENDING) return true;
    const command = queue.entry.u32;
    if (status !== Status.SUCCESS) state.logs.noteError(queue.place.id, command, status);
    if (state.mustKeep) {
      const outcome = { count: queue.nextCount, head: command[Sqe.HEAD]!, status };
      this.#keep(queue.place.id === 0 ? { ...outcome, result: state.result } : null);
    }
    completeAtHead(queue, state.result, status);
    return true;
  }

  #execute(queue: SubmissionQueue): number {
    if (queue.place.id !== 0) {
      const status = this.#io.execute(queue);
      this.#bytesLeft -= this.#io.moved;
      return status;
    }
    const outcome = this.#outcome;
    this.#outcome = null;
    if (outcome === null || outcome.head !== queue.entry.u32[Sqe.HEAD])
      return this.#admin.execute(queue, this.#registers.cc);
    this.#state.result = outcome.result;
    return outcome.status;
  }

  /** Whether it makes sense to try a queue that memory refused. */
  #mayReach(queue: SubmissionQueue): boolean {
    if (queue.refusedAfter < 0 || queue.refusedAfter !== this.#kicks) return true;
    return queue.refusedIn !== this.config.memory.generation;
  }

  #refuse(queue: SubmissionQueue): void {
    if (queue.refusedAfter >= 0 && queue.refusedAfter !== this.#kicks) {
      this.#registers.csts |= Csts.CFS;
      this.#state.mustKeep = true;
    }
    queue.refusedAfter = this.#kicks;
    queue.refusedIn = this.config.memory.generation;
  }

  #reportDoorbell(information: number): void {
    if (this.#state.events.raise(EventType.ERROR, information)) this.#keep(null);
  }

  /** One interrupt for each vector with something new. */
  #signal(): void {
    for (const queue of this.#state.completions) {
      if (queue === null || !queue.mustSignal) continue;
      queue.mustSignal = false;
      if (queue.place.vector >= 0) this.config.interrupts.raise(queue.place.vector);
    }
  }

  #keep(outcome: Outcome | null): void {
    this.#state.mustKeep = false;
    this.revision += 1;
    this.config.journal.keep({ ...this.saveRest(), outcome: outcome ?? this.#outcome });
  }

  /** What {@link save} gives but the words. */
  saveRest(): NvmeState {
    const { completions, submissions, features, events, logs } = this.#state;
    return {
      version: 1,
      registers: this.#registers.save(),
      isStarting: this.#isStarting,
      completions: completions.flatMap((queue) => queue?.place ?? []),
      submissions: submissions.flatMap((queue) => queue?.place ?? []),
      features: features.save(),
      events: events.save(),
      health: { ...logs.health },
      errorCount: logs.errorCount,
      outcome: this.#outcome,
    };
  }
}
