/**
 * What the parts of a controller share: queues, features, logs, unfinished commands. The parts that
 * decide (admin.ts, io.ts) work on it; controller.ts drives them.
 */
import { Errno } from "../errno.ts";
import { type MemoryView, newView } from "../memory/memory-view.ts";
import { DataPointer } from "./data-pointer.ts";
import { Events } from "./events.ts";
import { Features } from "./features.ts";
import { Journal } from "./journal.ts";
import { Logs } from "./logs.ts";
import { Operations, type Work } from "./operations.ts";
import { Status, TRANSFER_BYTES_MAX } from "./protocol.ts";
import {
  type CompletionPlace,
  CompletionQueue,
  type SubmissionPlace,
  SubmissionQueue,
} from "./queues.ts";
import type { NvmeConfig } from "./settings.ts";
import { Slots } from "./slots.ts";

/** Instead of a status: the command has a slot and is completed later. */
export const PENDING = -1;

/** The state. */
export class ControllerState {
  readonly config: NvmeConfig;
  readonly journal: Journal;
  readonly pointer: DataPointer;
  readonly features: Features;
  readonly logs: Logs;
  readonly events = new Events();
  readonly slots: Slots;
  readonly operations: Operations;
  /** By identifier. */
  readonly submissions: (SubmissionQueue | null)[];
  readonly completions: (CompletionQueue | null)[];
  /** First word of the completion of the command at hand. */
  result = 0;
  /** Whether something changed that the journal must keep before the driver sees a completion. */
  mustKeep = false;
  #scratch: MemoryView | null = null;

  constructor(config: NvmeConfig) {
    this.config = config;
    this.journal = new Journal(config.queues, config.journal.words);
    this.pointer = new DataPointer(config.memory);
    this.features = new Features(config.queues);
    this.logs = new Logs(this.features);
    this.slots = new Slots(this.journal);
    this.operations = new Operations(config.store);
    this.submissions = new Array(config.queues + 1).fill(null);
    this.completions = new Array(config.queues + 1).fill(null);
  }

  /** Bytes to work with, as many as a command transfers at most. */
  get scratch(): MemoryView {
    this.#scratch ??= newView(TRANSFER_BYTES_MAX);
    return this.#scratch;
  }

  /** Puts a completion queue in its place, as the journal knows it. */
  addCompletion(place: CompletionPlace): CompletionQueue {
    const queue = new CompletionQueue(this.config.memory, this.journal, place);
    this.completions[place.id] = queue;
    return queue;
  }

  /** The same for a submission queue, whose completion queue exists. */
  addSubmission(place: SubmissionPlace): SubmissionQueue {
    const completion = this.completions[place.completion]!;
    const queue = new SubmissionQueue(this.config.memory, this.journal, place, completion);
    completion.users += 1;
    this.submissions[place.id] = queue;
    return queue;
  }

  removeSubmission(id: number): void {
    this.submissions[id]!.completion.users -= 1;
    this.submissions[id] = null;
  }

  /** Whether an I/O queue exists. */
  get hasIoQueues(): boolean {
    return this.completions.some((queue, id) => queue !== null && id > 0);
  }

  /**
   * Starts work of the store for the command at its queue's head.
   *
   * @returns a status when it ended at once, else PENDING: the command has a slot
   */
  begin(queue: SubmissionQueue, work: Work): number {
    const operation = this.operations.begin(work);
    if (this.operations.hasEnded(operation)) return this.statusOf(operation.errno);
    this.slots.take(queue).operation = operation;
    return PENDING;
  }

  /** The status for an errno of an operation that writes. */
  statusOf(errno: number): number {
    if (errno === Errno.OK) return Status.SUCCESS;
    this.logs.health.mediaErrors += 1;
    if (errno === Errno.ENOSPC) return Status.CAPACITY_EXCEEDED;
    if (errno === Errno.EPERM || errno === Errno.EACCES) return Status.WRITE_PROTECTED;
    return Status.WRITE_FAULT;
  }

  /** No queue, no unfinished command, no event, every feature as at first. */
  forgetQueues(): void {
    this.submissions.fill(null);
    this.completions.fill(null);
    this.slots.clear();
    this.events.clear();
    this.features.reset();
  }
}
