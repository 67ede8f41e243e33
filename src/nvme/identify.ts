/**
 * What the Identify command returns (1.4, 5.15): who the controller is, what it can do, and its one
 * namespace. Built from the settings; nothing here changes while the controller lives.
 */
import { Cns, MDTS, NAMESPACE, NAMESPACE_ALL, PAGE, Sqe, Status, VERSION } from "./protocol.ts";
import { type NvmeConfig, uuidText } from "./settings.ts";
import { IdentifyController, IdentifyNamespace } from "./structures.ts";

/** PCI vendor: the one that emulators have always shared, so that no quirk of a real one applies. */
export const VENDOR = 0x1234;
/** Asynchronous Event Requests that can wait at a time. */
export const ASYNC_EVENTS_MAX = 4;
/** Entries of the error log. */
export const ERROR_ENTRIES = 16;
/** What is recommended, and what the arbitration burst is at first: 2^4 commands. */
export const ARBITRATION_BURST = 4;
/** Kelvin: above this the controller counts as hot. */
export const WARNING_TEMPERATURE = 343;
/** Firmware revision, as the firmware log tells it too. */
export const FIRMWARE = "1.0     ";

/** Compare, Dataset Management, Write Zeroes, and the select field of Get Features. */
const OPTIONAL_COMMANDS = 0x1d;

function text(value: string, length: number, filler = " "): Uint8Array {
  const padded = value.slice(0, length).padEnd(length, filler);
  return Uint8Array.from(padded, (character) => character.charCodeAt(0) & 0x7f);
}

function controllerBytes(config: NvmeConfig): Uint8Array {
  return IdentifyController.bytesOf({
    vid: VENDOR,
    ssvid: VENDOR,
    sn: text(config.serial, 20),
    mn: text("iommukit NVMe", 40),
    fr: text(FIRMWARE, 8),
    rab: ARBITRATION_BURST,
    mdts: MDTS,
    ver: VERSION,
    cntrltype: 1,
    acl: 3,
    aerl: ASYNC_EVENTS_MAX - 1,
    frmw: 0x03,
    lpa: 0x06,
    elpe: ERROR_ENTRIES - 1,
    wctemp: WARNING_TEMPERATURE,
    cctemp: WARNING_TEMPERATURE + 20,
    sqes: 0x66,
    cqes: 0x44,
    nn: 1,
    oncs: OPTIONAL_COMMANDS,
    vwc: 0x07,
    sgls: 0x1_0001,
    subnqn: text(`nqn.2014-08.org.nvmexpress:uuid:${uuidText(config.uuid)}`, 256, "\0"),
    maximumPower: 2500,
  });
}

function namespaceBytes(config: NvmeConfig): Uint8Array {
  const blocks = BigInt(config.blocks);
  return IdentifyNamespace.bytesOf({
    nsze: blocks,
    ncap: blocks,
    nuse: blocks,
    dlfeat: 0x08,
    nsattr: config.store.isReadOnly ? 1 : 0,
    lbaDataSize: Math.log2(config.blockBytes),
  });
}

/** Namespace Identification Descriptor list: one UUID (figure 249). */
function descriptorBytes(config: NvmeConfig): Uint8Array {
  const bytes = new Uint8Array(PAGE);
  bytes[0] = 3;
  bytes[1] = 16;
  bytes.set(config.uuid, 4);
  return bytes;
}

function listBytes(after: number): Uint8Array {
  const bytes = new Uint8Array(PAGE);
  if (after < NAMESPACE) new DataView(bytes.buffer).setUint32(0, NAMESPACE, true);
  return bytes;
}

/** Answers Identify. @returns 4096 bytes, or a status */
export function identify(config: NvmeConfig, command: Uint32Array): Uint8Array | number {
  const namespace = command[Sqe.NAMESPACE]!;
  switch (command[Sqe.CDW10]! & 0xff) {
    case Cns.CONTROLLER:
      return controllerBytes(config);
    case Cns.NAMESPACE:
      return namespace === NAMESPACE ? namespaceBytes(config) : Status.INVALID_NAMESPACE;
    case Cns.ACTIVE_NAMESPACES:
      return namespace >= NAMESPACE_ALL - 1 ? Status.INVALID_NAMESPACE : listBytes(namespace);
    case Cns.NAMESPACE_DESCRIPTORS:
      return namespace === NAMESPACE ? descriptorBytes(config) : Status.INVALID_NAMESPACE;
    case Cns.COMMAND_SET_NAMESPACE:
      if (namespace !== NAMESPACE) return Status.INVALID_NAMESPACE;
      return commandSetBytes(command);
    case Cns.COMMAND_SET_CONTROLLER:
      return commandSetBytes(command);
    default:
      return Status.INVALID_FIELD;
  }
}

/** Of 2.0, and Linux asks whatever the version: the NVM command set, without a limit of its own. */
function commandSetBytes(command: Uint32Array): Uint8Array | number {
  return command[Sqe.CDW11]! >>> 24 === 0 ? new Uint8Array(PAGE) : Status.INVALID_FIELD;
}
