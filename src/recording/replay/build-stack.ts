/** Builds the stack that a policy runs on. */
import type { Meter } from "../../meter.ts";
import { PassthroughStack } from "./passthrough-stack.ts";
import type { Policy } from "./policy.ts";
import type { PolicyStack } from "./policy-stack.ts";
import type { IommuKind } from "./result.ts";

/** What a stack is built for. */
export interface StackOptions {
  readonly iommu: IommuKind;
  readonly cpus: number;
  readonly meter: Meter;
  readonly flushQueueSlots?: number;
  readonly flushTimeoutNs?: number;
}

/** Builds it. */
export function buildStack(_policy: Policy, _options: StackOptions): PolicyStack {
  return new PassthroughStack();
}
