/** PCI functions out of a host's plan: addresses read, bridges found, the rest filled in. */
import { StackError } from "../../errors.ts";
import type { PciFunction } from "../../iommu/pci-function.ts";
import type { DevicePlan } from "./host-plan.ts";

const ADDRESS = /^([0-9a-f]{4}):([0-9a-f]{2}):([01][0-9a-f])\.([0-7])$/;

/**
 * The functions, in the order of the plan.
 *
 * @throws StackError `vfio/bad-address`, `vfio/no-such-bridge`
 */
export function functionsOf(devices: readonly DevicePlan[]): PciFunction[] {
  const indexOf = new Map(devices.map((device, index) => [device.address, index]));
  return devices.map((device, index) => {
    const match = ADDRESS.exec(device.address);
    if (match === null || indexOf.get(device.address) !== index) throw badAddress(device);
    const [segment, bus, slot, number] = match
      .slice(1)
      .map((digits) => Number.parseInt(digits, 16));
    const bridge = device.bridge === undefined ? -1 : indexOf.get(device.bridge);
    if (bridge === undefined || bridge >= index) throw noBridge(device);
    return {
      segment: segment!,
      bus: bus!,
      devfn: slot! * 8 + number!,
      portType: device.portType ?? "endpoint",
      isMultifunction: device.isMultifunction ?? false,
      acs: device.acs ?? null,
      bridge,
      secondaryBus: device.secondaryBus ?? -1,
      ...(device.quirks === undefined ? {} : { quirks: device.quirks }),
    };
  });
}

function badAddress({ address }: DevicePlan): StackError {
  return new StackError({
    code: "vfio/bad-address",
    kind: "input",
    message: `${address} is no PCI address, or the plan has it twice`,
    hint: "write it as lspci -D prints it, in lower case: 0000:17:00.0",
  });
}

function noBridge({ address, bridge }: DevicePlan): StackError {
  return new StackError({
    code: "vfio/no-such-bridge",
    kind: "input",
    message: `${bridge}, the bridge above ${address}, does not come before it in the plan`,
    hint: "list bridges first",
  });
}
