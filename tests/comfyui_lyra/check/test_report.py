from lyra_pack.comfyui_lyra.check.report import Finding, Report, Section

GOOD = Finding(name="encode", found="error 1e-3", works=True, wanted="at most 0.02")
TOLD = Finding(name="triton", found="not installed")
BAD = Finding(name="decode", found="9.1 dB | a\nbroken line", works=False, wanted="at least 40 dB")


def report(*findings: Finding) -> Report:
    return Report(sections=(Section(title="Stages", findings=findings, note="a note"),))


def test_all_works_only_if_something_was_judged_and_nothing_failed():
    assert report(GOOD, TOLD).works
    assert not report(GOOD, BAD).works
    assert not report(TOLD).works and not report(TOLD).failing and "nothing was checked" in str(report(TOLD))


def test_the_report_is_a_table_whose_cells_stay_on_one_line():
    lines = str(report(GOOD, TOLD, BAD)).splitlines()
    assert lines[2] == "**It will not all work**: 1 of 2 checks failed: decode."
    assert "| ok | encode | error 1e-3 | at most 0.02 |" in lines
    assert r"| **FAILS** | decode | 9.1 dB \| a broken line | at least 40 dB |" in lines
    assert "|  | triton | not installed |  |" in lines and "a note" in lines
