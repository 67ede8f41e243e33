/**
 * What a supervisor and its worker tell each other. Descriptors travel with the frame that names
 * them, in the order stated here.
 */
import type { MetricGroup } from "../metrics/metric-table.ts";
import type { Kept } from "./journal-transport.ts";

/** To the worker. */
export type ToWorker =
  /** Be this machine. Descriptors: the journal, then the named files. */
  | {
      readonly type: "start";
      readonly machine: unknown;
      readonly devices: readonly string[];
      readonly metrics: readonly MetricGroup[];
      readonly files: readonly string[];
    }
  /** What a device's client had given to the worker before. Descriptors: as listed. */
  | { readonly type: "custody"; readonly device: string; readonly kept: readonly Kept[] }
  /** Go on with clients of the worker before. Descriptors: their sockets. */
  | { readonly type: "resume"; readonly devices: readonly string[] }
  /** Serve a new client. Descriptor: its socket. */
  | { readonly type: "connect"; readonly device: string }
  /** Write everything down and end: another goes on. */
  | { readonly type: "leave" }
  | { readonly type: "stop" };

/** From the worker. */
export type FromWorker =
  /** Everything is loaded. */
  | { readonly type: "loaded" }
  /** The machine has been assembled, and what was to be resumed has been. */
  | { readonly type: "started" }
  /** The machine cannot be assembled. */
  | { readonly type: "refused"; readonly message: string; readonly hint: string | null }
  /** Descriptors of a client: keep copies. What was kept beyond `taken` bytes is void, if given. */
  | {
      readonly type: "keep";
      readonly device: string;
      readonly kept: readonly Kept[];
      readonly taken: number | null;
    }
  /** Copies that are not needed any more. */
  | { readonly type: "drop"; readonly device: string; readonly numbers: readonly number[] }
  /** A file that successors need as well. Descriptor: the file. */
  | { readonly type: "file"; readonly name: string }
  /** A client has gone. */
  | { readonly type: "closed"; readonly device: string }
  | { readonly type: "log"; readonly line: string }
  | { readonly type: "left" };
