/**
 * The arguments that give a virtual machine its host's topology for chosen devices: nodes with their
 * memory bound, an expander on each, a root port for each device, and an IOMMU where one is wanted.
 *
 * Source: QEMU docs/pcie.txt, docs/pci_expander_bridge.txt, qemu-options.hx (-numa); hw/vfio/common.c
 * (which IOMMUs of a guest a device can be behind); libvirt "Domain XML format".
 */
import type { Machine } from "../topology/machine.ts";
import { libvirtText } from "./emit-libvirt.ts";
import { type EmitOptions, planOf } from "./emit-plan.ts";
import { qemuText } from "./emit-qemu.ts";

/** Forms that can be written. */
export const emitForms = ["qemu", "libvirt"] as const;
export type EmitForm = (typeof emitForms)[number];

/** Writes the arguments. @throws StackError when a device is not there, or something does not fit */
export function emitVm(
  host: Machine,
  names: readonly string[],
  form: EmitForm,
  options: EmitOptions = {},
): string {
  const plan = planOf(host, names, options);
  return form === "qemu" ? qemuText(plan) : libvirtText(plan);
}
