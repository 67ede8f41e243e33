/** Fuzzes what reads virtual machines: nothing but a StackError comes out, and it ends. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { StackError } from "../errors.ts";
import { machineProblems } from "../topology/validate.ts";
import { check } from "./check.ts";
import { explain } from "./explain.ts";
import { vmOfDomain } from "./libvirt.ts";
import { readCommand } from "./qemu-command.ts";
import { buildVm } from "./qemu-vm.ts";
import { splitWords } from "./qemu-words.ts";
import type { VirtualMachine } from "./vm.ts";

const nothing = { host: null, devices: [], memlockBytes: 1n, entryLimit: null };
const number = fc.oneof(
  fc.nat(300),
  fc.constantFrom("-1", "0x", "9999999999999", "1f", "0", "", "a-"),
);
const id = fc.constantFrom("a", "b", "c", "pcie.0", "__proto__", "constructor");
const value = fc.oneof(
  number,
  id,
  fc.constantFrom("on", "off", "4G", "1E", "0-65535", "node", "dist"),
);
const key = fc.constantFrom(
  ..."id bus addr numa_node bus_nr bypass_iommu host sysfsdev iommufd size host-nodes policy nodeid cpus memdev src dst val sockets cores threads socket-id type bypass iommu disable-legacy multifunction socket.path".split(
    " ",
  ),
);
const driver = fc.constantFrom(
  ..."pxb-pcie pcie-root-port x3130-upstream xio3130-downstream pcie-pci-bridge pci-bridge nvme vfio-pci virtio-net-pci virtio-iommu-pci intel-iommu amd-iommu arm-smmuv3 wobble toString".split(
    " ",
  ),
);
const flag = fc.constantFrom(
  ..."-device -object -numa -machine -m -smp -drive -nic -vga --x".split(" "),
);
const argument = fc
  .tuple(flag, driver, fc.array(fc.tuple(key, value), { maxLength: 5 }), fc.boolean())
  .map(([name, first, pairs, isJson]) =>
    isJson
      ? [name, JSON.stringify(Object.fromEntries([["driver", first], ...pairs]))]
      : [name, [first, ...pairs.map(([one, two]) => `${one}=${two}`)].join(",")],
  );

function survives(make: () => VirtualMachine): void {
  let vm: VirtualMachine;
  try {
    vm = make();
  } catch (error) {
    expect(error).toBeInstanceOf(StackError);
    return;
  }
  check({ ...nothing, vm });
  machineProblems(vm.machine);
}

describe("readers of virtual machines", () => {
  it("take any arguments", () => {
    fc.assert(
      fc.property(fc.array(argument, { maxLength: 40 }), fc.boolean(), (list, isArm) => {
        const program = isArm ? "qemu-system-aarch64" : "qemu-system-x86_64";
        survives(() => buildVm(readCommand([program, ...list.flat()], "fuzz")));
      }),
      { numRuns: 1500 },
    );
  });

  it("take any text", () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 300, unit: "binary" }), (text) => {
        survives(() => buildVm(readCommand(splitWords(text, "fuzz"), "fuzz")));
        survives(() => vmOfDomain(text, "fuzz", null));
        explain(text);
      }),
      { numRuns: 3000 },
    );
  });

  it("take any domain", () => {
    const tag = fc.constantFrom(
      ..."domain devices controller hostdev source address target node numa cell cpu numatune memnode iommu driver interface memory".split(
        " ",
      ),
    );
    const attribute = fc.tuple(
      fc.constantFrom(
        ..."type model index bus slot function busNr id cpus memory unit nodeset mode".split(" "),
      ),
      fc.oneof(
        value,
        fc.constantFrom("pci", "pcie-root-port", "pcie-expander-bus", "virtio", "intel", "strict"),
      ),
    );
    const wrap = (inner: fc.Arbitrary<string>) =>
      fc
        .tuple(tag, fc.array(attribute, { maxLength: 4 }), fc.array(inner, { maxLength: 3 }))
        .map(([name, pairs, children]) => {
          const text = [...new Map(pairs)].map(([one, two]) => ` ${one}='${two}'`).join("");
          return `<${name}${text}>${children.join("")}7</${name}>`;
        });
    const element = wrap(wrap(wrap(fc.constantFrom("", "5"))));
    fc.assert(
      fc.property(fc.array(element, { maxLength: 6 }), (list) => {
        survives(() => vmOfDomain(`<domain>${list.join("")}</domain>`, "fuzz", null));
      }),
      { numRuns: 1500 },
    );
  });
});
