"""Chapter 16: a checkpoint that survives a kill at any call, and that knows when it is damaged (question D11)."""

from parallel_lab.grading import crashes
from parallel_lab.grading.exercise import Exercise, on

NEWEST = "Which of the checkpoints in the folder is the newest, also where the step has more digits than before?"
ASIDE = (
    "Until the new one is whole, nothing that load() looks at may have changed. Which one call shows all of it at once?"
)
KEPT = "What was whole before may go only when the new one counts."
LEFT = "A save that died has left something behind: is it in the way of the next one?"
CHECKSUM = (
    "A file of numbers looks right with any bits. What could be kept of it when it is written, to hold it against?"
)
OLDER = "A damaged checkpoint is passed over. Is the one before it still there, and is it looked at?"
FSYNC = (
    "write() hands bytes to the operating system, which may write them after the rename: then power fails in between."
)
FOLDER = "The new name stands in a folder, which is a file as well: os.open(folder, os.O_RDONLY), then fsync."
KILLS = {"raised": ASIDE, "other": ASIDE, "nothing": KEPT, "next": LEFT}

EXERCISE = Exercise(
    name="crash_safe_checkpoint",
    given=crashes.states,
    drive=crashes.observe,
    device="cpu",
    settings={"shapes": ((300, 7), (11,))},
    tests={
        # Step 1
        "What was saved last is loaded": on(1, crashes.loads_the_newest(NEWEST), look="loads"),
        "A kill at any call of a save leaves the old or the new one, and the next save works": on(
            1, crashes.survives(KILLS), look="kills"
        ),
        # Step 2
        "A changed bit is found, and the one before is loaded": on(
            1, crashes.finds_flips(CHECKSUM, OLDER), look="flips"
        ),
        # Step 3
        "Files and folder are synced, in the right order": on(1, crashes.syncs(FSYNC, FOLDER), look="syncs"),
    },
)
