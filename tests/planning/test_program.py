"""What is read from a program's text, against programs whose exchanges are known."""

import numpy as np
import pytest

from xactor_jax.planning.program import Program

LOOP = """HloModule jit_f

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %add = f32[] add(%a, %b)
}

%fused (p: f32[8,256], i: s32[]) -> f32[1,256] {
  %p = f32[8,256]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %slice = f32[1,256]{1,0} dynamic-slice(%p, %i, %zero), dynamic_slice_sizes={1,256}
}

%body (c: (s32[], f32[256], f32[8,256])) -> (s32[], f32[256], f32[8,256]) {
  %c = (s32[], f32[256]{0}, f32[8,256]{1,0}) parameter(0)
  %n = s32[] get-tuple-element(%c), index=0
  %x = f32[256]{0} get-tuple-element(%c), index=1
  %all = f32[8,256]{1,0} get-tuple-element(%c), index=2
  %one = f32[1,256]{1,0} fusion(%all, %n), kind=kLoop, calls=%fused
  %reduced = f32[256]{0} all-reduce(%x), channel_id=3, replica_groups=GROUPS, to_apply=%sum
  ROOT %next = (s32[], f32[256]{0}, f32[8,256]{1,0}) tuple(%n, %reduced, %all)
}

%condition (c: (s32[], f32[256], f32[8,256])) -> pred[] {
  %c = (s32[], f32[256]{0}, f32[8,256]{1,0}) parameter(0)
  %n = s32[] get-tuple-element(%c), index=0
  %limit = s32[] constant(8)
  ROOT %less = pred[] compare(%n, %limit), direction=LT
}

ENTRY %main (given: (s32[], f32[256], f32[8,256]), y: f32[64]) -> f32[256] {
  %given = (s32[], f32[256]{0}, f32[8,256]{1,0}) parameter(0)
  %y = f32[64]{0} parameter(1)
  %gathered = f32[256]{0} all-gather(%y), channel_id=1, replica_groups=GROUPS, dimensions={0}
  %loop = (s32[], f32[256]{0}, f32[8,256]{1,0}) while(%given), condition=%condition, body=%body
  ROOT %out = f32[256]{0} get-tuple-element(%loop), index=1
}
"""
ROWS = np.arange(8).reshape(2, 4)


@pytest.mark.parametrize(
    ("written", "groups"),
    [
        ("{{0,1,2,3},{4,5,6,7}}", ROWS),
        ("[2,4]<=[8]", ROWS),
        ("[2,4]<=[4,2]T(1,0)", np.arange(8).reshape(4, 2).T),
        ("mesh['a'=2,'b'=4] {'b'}", ROWS),
    ],
)
def test_exchanges_count_as_often_as_their_loop_runs(written, groups):
    program = Program(LOOP.replace("GROUPS", written))
    reduced, gathered = sorted(program.collectives, key=lambda found: -found.times)
    np.testing.assert_array_equal(reduced.groups, groups)
    assert (reduced.kind, reduced.times) == ("all-reduce", 8)
    # On a ring of four each device sends 2 x 3/4 of the sum, and its own part to three others.
    assert reduced.sent == 2 * 3 / 4 * 256 * 4
    assert (gathered.kind, gathered.times, gathered.sent) == ("all-gather", 1, 3 * 64 * 4)


def test_of_what_a_kernel_takes_slices_only_slices_are_read():
    program = Program(LOOP.replace("GROUPS", "[2,4]<=[8]"))
    slices, reduced = 8 * 2 * 1024, 8 * 2 * 1024
    indices = 8 * 4
    assert program.traffic == slices + reduced + indices + 256 + 1024


BETWEEN_SLICES = """HloModule jit_f

ENTRY %main (x: f32[4,256], y: f32[64]) -> f32[4,256] {
  %x = f32[4,256]{1,0} parameter(0)
  %y = f32[64]{0} parameter(1)
  %gathered = f32[256]{0} all-gather(%y), channel_id=2, replica_groups={{0,1,2,3},{4,5,6,7}}
  %after = token[] after-all(), frontend_attributes={MegascaleRendezvousKeyName="all-reduce_0"}
  %send = (f32[4,256]{1,0}, u32[], token[]) send(%x, %after), channel_id=2, TO_HOST
  %recv = (f32[4,256]{1,0}, u32[], token[]) recv(%after), channel_id=1, TO_HOST
  %send-done = token[] send-done(%send), channel_id=2, is_host_transfer=true
  %recv-done = (f32[4,256]{1,0}, token[]) recv-done(%recv), channel_id=1, is_host_transfer=true
  ROOT %out = f32[4,256]{1,0} get-tuple-element(%recv-done), index=0
}
""".replace(
    "TO_HOST",
    'is_host_transfer=true, frontend_attributes={_xla_megascale_target="{1,2,3}x{0:3}",'
    '_xla_megascale_transfer_type="ALL_REDUCE"}',
)


def test_what_hosts_exchange_between_slices_counts_too():
    gathered, reduced = Program(BETWEEN_SLICES, slices=3).collectives
    assert (gathered.kind, gathered.between_slices) == ("all-gather", False)
    assert (reduced.kind, reduced.between_slices) == ("all-reduce", True)
    # A ring of three slices, in which each device stands for its own.
    assert reduced.sent == 2 * 2 / 3 * 4 * 256 * 4
