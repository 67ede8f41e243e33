/** Builds the stack that a policy runs on. */

import type { Policy } from "../../dma/policy.ts";
import { buildHardware } from "./hardware-stack.ts";
import { PassthroughStack } from "./passthrough-stack.ts";
import type { PolicyStack } from "./policy-stack.ts";
import type { IommuKind } from "./result.ts";
import type { RunMeter } from "./run-meter.ts";
import { TranslatedStack } from "./translated-stack.ts";
import { buildVirtio } from "./virtio-stack.ts";

/** What a stack is built for. */
export interface StackOptions {
  readonly iommu: IommuKind;
  readonly cpus: number;
  readonly meter: RunMeter;
  readonly flushQueueSlots?: number;
  readonly flushTimeoutNs?: number;
}

/** Builds it. */
export function buildStack(policy: Policy, options: StackOptions): PolicyStack {
  if (policy.mode === "passthrough") return new PassthroughStack();
  const build = options.iommu === "virtio" ? buildVirtio : buildHardware;
  return new TranslatedStack(build(policy, options.meter), { policy, ...options });
}
