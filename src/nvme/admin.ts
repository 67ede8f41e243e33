/**
 * Admin commands (1.4, section 5).
 */
import type { Segment } from "../memory/device-memory.ts";
import { copyBetween, newView } from "../memory/memory-view.ts";
import {
  createCompletion,
  createSubmission,
  deleteCompletion,
  deleteSubmission,
} from "./admin-queues.ts";
import { ASYNC_EVENTS_MAX, identify } from "./identify.ts";
import {
  AdminOpcode,
  EventType,
  Feature,
  LogPage,
  NAMESPACE_ALL,
  PAGE,
  SMART_TEMPERATURE,
  Sqe,
  Status,
} from "./protocol.ts";
import type { SubmissionQueue } from "./queues.ts";
import type { Slot } from "./slots.ts";
import { type ControllerState, PENDING } from "./state.ts";

const FUSED = 0x300;
/** Get Log Page: retain the event that the page belongs to. */
const RETAIN_EVENT = 0x8000;
const NOT_ABORTED = 1;

/** Executes admin commands. */
export class AdminCommands {
  readonly #state: ControllerState;
  readonly #reply = newView(PAGE);

  constructor(state: ControllerState) {
    this.#state = state;
  }

  /**
   * Executes the command at the admin queue's head.
   *
   * @param cc - the register, whose entry sizes new queues must fit
   * @returns a status, with `result` set, or PENDING
   */
  execute(queue: SubmissionQueue, cc: number): number {
    const state = this.#state;
    const command = queue.entry.u32;
    if ((command[Sqe.HEAD]! & FUSED) !== 0) return Status.INVALID_FIELD;
    switch (command[Sqe.HEAD]! & 0xff) {
      case AdminOpcode.DELETE_SQ:
        return deleteSubmission(state, command);
      case AdminOpcode.CREATE_SQ:
        return createSubmission(state, command, cc);
      case AdminOpcode.DELETE_CQ:
        return deleteCompletion(state, command);
      case AdminOpcode.CREATE_CQ:
        return createCompletion(state, command, cc);
      case AdminOpcode.IDENTIFY:
        return this.#identify(command);
      case AdminOpcode.GET_LOG_PAGE:
        return this.#getLogPage(command);
      case AdminOpcode.ABORT:
        return this.#abort(command);
      case AdminOpcode.SET_FEATURES:
        return this.#setFeatures(command);
      case AdminOpcode.GET_FEATURES: {
        const status = state.features.get(command);
        if (status === Status.SUCCESS) state.result = state.features.result;
        return status;
      }
      case AdminOpcode.ASYNC_EVENT:
        if (this.eventRequests.length >= ASYNC_EVENTS_MAX) return Status.ASYNC_EVENT_LIMIT;
        state.slots.take(queue);
        return PENDING;
      default:
        return Status.INVALID_OPCODE;
    }
  }

  /** Event requests that wait, by slot. */
  get eventRequests(): readonly Slot[] {
    return this.#state.slots.all.filter(
      ({ queue, command, isFinished }) =>
        queue.place.id === 0 &&
        !isFinished &&
        (command[Sqe.HEAD]! & 0xff) === AdminOpcode.ASYNC_EVENT,
    );
  }

  /** Goes on with deletions that wait: each whose queue has no unfinished command is done. */
  continueDeletions(): void {
    const state = this.#state;
    for (const slot of state.slots.all) {
      const isDeletion = (slot.command[Sqe.HEAD]! & 0xff) === AdminOpcode.DELETE_SQ;
      if (slot.queue.place.id !== 0 || slot.isFinished || !isDeletion) continue;
      const id = slot.command[Sqe.CDW10]! & 0xffff;
      const queue = state.submissions[id] ?? null;
      if (queue !== null) {
        queue.isClosing = true;
        if (state.slots.countOf(queue) > 0) continue;
        state.removeSubmission(id);
        state.mustKeep = true;
      }
      state.slots.finish(slot, Status.SUCCESS, 0);
    }
  }

  /** Looks whether the temperature passes a threshold that the driver wants to hear of. */
  checkTemperature(): void {
    const { features, logs, events } = this.#state;
    if ((features.value(Feature.ASYNC_EVENTS) & logs.warnings) === 0) return;
    if (events.raise(EventType.SMART, SMART_TEMPERATURE)) this.#state.mustKeep = true;
  }

  #identify(command: Uint32Array): number {
    const answer = identify(this.#state.config, command);
    if (typeof answer === "number") return answer;
    return this.#send(command, answer);
  }

  #getLogPage(command: Uint32Array): number {
    const state = this.#state;
    const identifier = command[Sqe.CDW10]! & 0xff;
    const page = state.logs.page(identifier);
    if (page === null) return Status.LOG_PAGE;
    const namespace = command[Sqe.NAMESPACE]!;
    const isWhole = namespace === 0 || namespace === NAMESPACE_ALL;
    if (identifier === LogPage.SMART && !isWhole) return Status.INVALID_FIELD;
    const words = (command[Sqe.CDW11]! & 0xffff) * 0x1_0000 + (command[Sqe.CDW10]! >>> 16) + 1;
    const offset = command[Sqe.CDW13]! * 2 ** 32 + command[Sqe.CDW12]!;
    if (offset % 4 !== 0 || offset >= page.length) return Status.INVALID_FIELD;
    const length = Math.min(4 * words, page.length - offset);
    const status = this.#send(command, page.subarray(offset, offset + length));
    if (status !== Status.SUCCESS || (command[Sqe.CDW10]! & RETAIN_EVENT) !== 0) return status;
    if (state.events.unmask(identifier)) state.mustKeep = true;
    if (identifier === LogPage.SMART) this.checkTemperature();
    return status;
  }

  /** Moves at most a page to where a command wants it. */
  #send(command: Uint32Array, bytes: Uint8Array): number {
    const { pointer } = this.#state;
    const status = pointer.gather(command, bytes.length, true, true);
    if (status !== Status.SUCCESS) return status;
    this.#reply.u8.set(bytes);
    let done = 0;
    for (const segment of pointer.list.segments as readonly Segment[]) {
      copyBetween(this.#reply, done, segment.view, segment.at, segment.bytes);
      done += segment.bytes;
    }
    return Status.SUCCESS;
  }

  /** Abort: event requests can be; what the store is at work for cannot be taken back. */
  #abort(command: Uint32Array): number {
    const state = this.#state;
    const cid = command[Sqe.CDW10]! >>> 16;
    state.result = NOT_ABORTED;
    if ((command[Sqe.CDW10]! & 0xffff) !== 0) return Status.SUCCESS;
    const request = this.eventRequests.find((slot) => slot.command[Sqe.HEAD]! >>> 16 === cid);
    if (request === undefined) return Status.SUCCESS;
    state.slots.finish(request, Status.ABORT_REQUESTED, 0);
    state.result = 0;
    return Status.SUCCESS;
  }

  #setFeatures(command: Uint32Array): number {
    const state = this.#state;
    const status = state.features.set(command, state.hasIoQueues);
    if (status !== Status.SUCCESS) return status;
    state.result = state.features.result;
    state.mustKeep = true;
    this.checkTemperature();
    return status;
  }
}
