/**
 * A server's state as plain data that survives JSON, and what else a successor needs.
 */
import type { Carried } from "./assembler.ts";
import type { SavedRegion } from "./dma-table.ts";
import type { SavedInterrupts } from "./interrupts.ts";
import type { Transport } from "./ports.ts";
import type { StreamStorage } from "./stream-memory.ts";
import type { ClientCapabilities } from "./version.ts";

/** The state. Numbers of descriptors are those of who saved it. */
export interface SavedServer {
  /** Null before VERSION. */
  readonly client: ClientCapabilities | null;
  /** Empty where regions are kept one by one. */
  readonly regions: readonly SavedRegion[];
  readonly interrupts: SavedInterrupts;
  /** What the function gave. */
  readonly function: unknown;
  /** Positions of the streams once the message counts that changed the state; null without client. */
  readonly stream: readonly number[] | null;
  /** Replies that carry a descriptor and were not sent. */
  readonly carriers: readonly { readonly at: number; readonly fd: number }[];
}

/** What a successor is given. */
export interface ResumeOptions {
  readonly state: SavedServer;
  /** The client's stream; null when nobody was connected. */
  readonly transport: Transport | null;
  readonly storage: StreamStorage;
  /** Descriptors that were received with messages nobody has handled, by position of these. */
  readonly carried?: readonly Carried[];
}
