/**
 * OPTION: how a file charges pinned pages, and whether an IOAS uses large pages; and the change of
 * the process that is charged.
 *
 * Source: drivers/iommu/iommufd/ioas.c: iommufd_option_rlimit_mode, iommufd_ioas_option_huge_pages,
 * iommufd_ioas_change_process; main.c:iommufd_option.
 */
import { Errno } from "../../errno.ts";
import type { UserProcess } from "../process/user-process.ts";
import type { Ioas } from "./ioas.ts";
import type { LockedUser } from "./locked-user.ts";
import type { IoPages } from "./pages.ts";
import { OptionOp } from "./uapi.ts";

/** What an option call gives. */
export interface OptionReply {
  readonly errno: number;
  readonly val64: bigint;
}

/** A switch: on or off. */
export interface Switch {
  readonly isOn: boolean;
  /** @returns an errno */
  turn(isOn: boolean): number;
}

/** Sets or gets a switch as a number. @returns EOPNOTSUPP, EINVAL, or what the switch gave */
export function switchOption(op: number, val64: bigint, option: Switch): OptionReply {
  if (op === OptionOp.GET) return { errno: Errno.OK, val64: option.isOn ? 1n : 0n };
  if (op !== OptionOp.SET) return { errno: Errno.EOPNOTSUPP, val64 };
  if (val64 > 1n) return { errno: Errno.EINVAL, val64 };
  return { errno: option.turn(val64 === 1n), val64 };
}

/** The switch of a file for charging the process instead of its user. */
export function chargeModeOf(file: { isChargingProcess: boolean }): Switch {
  return {
    isOn: file.isChargingProcess,
    turn(isOn) {
      file.isChargingProcess = isOn;
      return Errno.OK;
    },
  };
}

/** The switch of an IOAS for large pages. */
export function hugePagesOf(ioas: Ioas): Switch {
  return {
    isOn: ioas.hasLargePages,
    turn(isOn) {
      if (!isOn) return ioas.disableLargePages();
      ioas.enableLargePages();
      return Errno.OK;
    },
  };
}

/**
 * Has another process, and its user, charged for everything that is mapped: a VMM that replaces
 * itself keeps its device's memory so.
 *
 * @returns EINVAL when something other than files is mapped, ENOMEM when the limit would be passed;
 *   then nothing has changed
 */
export function changeProcess(
  spaces: readonly Ioas[],
  process: UserProcess,
  user: LockedUser,
): number {
  const moved = new Set<IoPages>();
  for (const ioas of spaces) {
    for (const { pages } of ioas.space.areas) {
      if (pages.source.kind !== "file") return Errno.EINVAL;
      const isStaying =
        pages.accountMode === "user" ? pages.user === user : pages.process === process;
      if (pages.accountMode !== "none" && !isStaying) moved.add(pages);
    }
  }
  let ofProcess = 0;
  let ofUser = 0;
  for (const pages of moved) {
    if (pages.accountMode === "mm") ofProcess += pages.chargedPages;
    else ofUser += pages.chargedPages;
  }
  let errno = process.charge(ofProcess, false);
  if (errno !== Errno.OK) return errno;
  errno = user.charge(ofUser, process.memlockPages);
  if (errno !== Errno.OK) {
    process.charge(-ofProcess, false);
    return errno;
  }
  for (const pages of moved) {
    if (pages.accountMode === "mm") pages.process.charge(-pages.chargedPages, false);
    else pages.user.charge(-pages.chargedPages, 0);
  }
  for (const ioas of spaces) {
    for (const { pages } of ioas.space.areas) {
      pages.process = process;
      pages.user = user;
    }
  }
  return Errno.OK;
}
