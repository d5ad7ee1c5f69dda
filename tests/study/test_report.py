import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pretend_study import FOLD, cell_folder, fill_cell, fill_peer, fill_study, write_events, write_study

from liverseg.labels import PRETRAIN_LABELS, label_names
from liverseg.networks import SEResUNet, SlabInput, WeightsRecord, export_weights, package_versions
from liverseg.study.report import write_report
from liverseg.study.results import read_results
from liverseg.study.slice_plots import choose_rows, choose_slices


@pytest.fixture
def study(tmp_path):
    study = write_study(tmp_path)
    fill_study(study)
    return study


@pytest.fixture(scope="module")
def illustrated(tmp_path_factory):
    """A study with images and curves, and its report's files. Tests only read there."""
    folder = tmp_path_factory.mktemp("illustrated")
    study = write_study(folder)
    fill_study(study)
    _write_images(study)
    dice = {1: 0.1, 2: 0.5, 3: 0.6}
    write_events(study, "joint-lits-none", 0, 0, val_score=dice, val_lesion_dice=dice)
    return study, write_report(study, folder / "report")


@pytest.mark.integration
def test_the_report_is_files_of_the_same_bytes_each_time(illustrated, tmp_path):
    study, first = illustrated
    second = write_report(study, tmp_path / "two")
    folder = first[0].parent
    assert [path.relative_to(folder).as_posix() for path in first] == [
        "study.md",
        "study_tables.md",
        "study_data.md",
        "study.html",
        "study.csv",
        "study/differences.png",
        "study/confusion.png",
        "study/reliability.png",
        "study/slices.png",
        "study/confusion_lesions.png",
        "study/training.png",
    ]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert sorted(path for path in folder.rglob("*") if path.is_file()) == sorted(first)
    for path in first[5:]:
        with Image.open(path) as picture:
            assert min(picture.size) > 200 and len(picture.getcolors(256)) > 5


@pytest.mark.integration
def test_the_page_has_findings_first_and_links_what_is_behind(illustrated):
    _, (page, *_) = illustrated
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# Study: by hand\n\n**Phantoms are not patients.**")
    assert "not complete" not in text and "outlined no lesion" not in text
    assert "16 trainings were scored on 7 annotated slices of 6 patients (data list hand-made, version 1): " in text
    assert _headings(text) == [
        "Findings",
        "Claims of the papers",
        "Detectable differences",
        "Strategies and initialisations",
        "Fine-tuning plans",
        "Pictures",
    ]
    assert len(text.splitlines()) < 100
    assert text.count("![") == 4
    _assert_links(page, "study_tables.md", "study_data.md", "study.csv")
    assert "with the right type; the most frequent type for every slice would have 0.43. Lesion Dice" in text
    assert "Images: liverseg phantom: synthetic. Licence: CC0-1.0. Outlines added.*" in text
    # what is best is not said to be better where that is not significant
    assert "**Type accuracy** is highest with `joint-lits-none`: 0.79 (0.50 to 1.00). Difference to `ynet-" in text
    assert "+0.143 (+0.000 to +0.333), not significant (p 0.661)." in text
    assert (
        "**Lesion Dice** is highest with `joint-lits-none` and `segmentation-lits-none`: 0.80 (0.80 to 0.80)." in text
    )
    assert (
        "Initialisation `lits` minus `scratch`: type accuracy +0.214 (significant: 0 of 1); lesion Dice +0.300 ("
        in text
    )
    assert (
        "Of 10 differences 4 are not significant. For 3 of these a paper prints a difference. The study would have "
        in text
    )


@pytest.mark.integration
def test_the_tables_say_what_was_run_and_have_every_seed(illustrated):
    _, (_, tables, *_) = illustrated
    text = tables.read_text(encoding="utf-8")
    for line in (
        "# Tables of the study: by hand\n",
        "Held-out folds: 0, 1",
        "Seeds: 0, 1\n",
        "Epochs: 3",
        "Code: commit 0123456789ab\n",
        "torch 2.13.0",
        "16 trainings and their evaluations, 8.0 hours summed over them without interrupted ones, on auto with",
        "10,000 times with seed 0",
        "| 0.79 (0.50 to 1.00)<br>seeds 0.86 0.71 |",
    ):
        assert line in text
    assert _headings(text) == [
        "What was run",
        "Strategies and initialisations, with seeds",
        "Fine-tuning plans, with seeds",
        "Validation scores over the training",
        "Paired differences",
        "Beyond the papers",
        "Claims of the papers, part by part",
        "As printed in the papers",
        "Further pictures",
    ]
    _assert_links(tables)


@pytest.mark.integration
def test_the_report_says_whether_scores_still_rose(illustrated, tmp_path):
    _, (page, tables, *_) = illustrated
    assert (
        "**Lengths of the trainings**: in the last quarter of the epochs, the mean validation score (± standard error "
        "over trainings) rose by less than 0.01 in 0 of 1 rows, and by 0.01 or more in `joint-lits-none` (+0.100), "
        "whose trainings may be too short; the curves of 15 of 16 trainings are missing.\n"
    ) in page.read_text(encoding="utf-8")
    line = "| joint | lits | none | class-aware Dice | 1 of 4 | 0.100 | 0.500 | 0.600 | +0.100 |\n"
    assert line in tables.read_text(encoding="utf-8")
    study = write_study(tmp_path)
    fill_cell(study, "joint-lits-none", 0, 0)
    page, tables, *_ = write_report(study, tmp_path / "report")
    text = "not known, because all validation curves are missing.\n"
    assert f"**Lengths of the trainings**: {text}" in page.read_text(encoding="utf-8")
    section = tables.read_text(encoding="utf-8").partition("## Validation scores over the training\n\n")[2]
    assert section.startswith(
        "Not known, because no cell's folder has TensorBoard events with these scores.\n\n- Epochs of "
    )


@pytest.mark.integration
def test_markdown_tables_are_complete(illustrated):
    _, (page, tables, data, *_) = illustrated
    for path, count in ((page, 3), (tables, 12), (data, 2)):
        text = path.read_text(encoding="utf-8")
        blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
        assert len(blocks) == count and all(len({line.count("|") for line in block}) == 1 for block in blocks)


@pytest.mark.integration
def test_the_data_sheet_has_what_list_and_results_hold(tmp_path):
    study = write_study(tmp_path)
    fill_study(study)
    (study.dataset_dir / "phantom.json").write_text(json.dumps({"kind": "cohort", "seed": 3, "recipe": 5}))
    text = write_report(study, tmp_path / "report")[2].read_text(encoding="utf-8")
    for line in (
        "- Kind: phantoms\n",
        "- Items: 7 annotated slices in 6 images of 6 patients\n",
        "- Labels: 0 background, 1 liver, 2 cyst, 3 hemangioma, 4 metastasis\n",
        "| 0 | yes | 3 | 4 | 2 | 1 | 1 | 0 |\n",
        "| cyst | 0 | 3 | 0 | 3 | 2 |\n",  # lesions of 15 mm, on three slices of two patients
        "- Source: liverseg phantom: synthetic\n",
        "`liverseg phantom FOLDER --kind cohort --seed 3`, recipe 5; phantom.json does not have the number of "
        "annotated slices, which `--slices` sets\n",
        "Licence: CC0-1.0.",
        hashlib.sha256(study.datalist.read_bytes()).hexdigest(),
        "The rarest type is hemangioma, with 2 of 7 items.",
    ):
        assert line in text


@pytest.mark.integration
def test_the_data_sheet_has_the_number_of_slices_if_it_is_recorded(tmp_path):
    study = write_study(tmp_path)
    fill_cell(study, "joint-lits-none", 1, 0)
    (study.dataset_dir / "phantom.json").write_text(json.dumps({"kind": "cohort", "slices": 7, "recipe": 5}))
    text = write_report(study, tmp_path / "report")[2].read_text(encoding="utf-8")
    assert "`liverseg phantom FOLDER --kind cohort --slices 7`, recipe 5\n" in text
    assert "does not have the number" not in text


@pytest.mark.integration
def test_the_data_sheet_names_what_is_not_stated(tmp_path):
    study = write_study(tmp_path, source="")
    fill_cell(study, "joint-lits-none", 1, 0)
    text = write_report(study, tmp_path / "report")[2].read_text(encoding="utf-8")
    assert "- Kind: patients\n" in text and "Source: not stated in the data list" in text
    assert "phantom" not in text
    assert "Without folds 0, which have no results." in text


@pytest.mark.integration
def test_peers_are_noted(tmp_path):
    study = write_study(tmp_path, peers=[{"strategy": "nnunet", "seeds": [0]}])
    fill_study(study)
    for fold in (0, 1):
        fill_peer(study, "nnunet-scratch-none", fold, 0)
    text = write_report(study, tmp_path / "report")[0].read_text(encoding="utf-8")
    assert "**Peers** are other software, trained outside this study" in text
    assert "Here: `nnunet-scratch-none` (other software 2.0; 18 iterations in 3 to 4 minutes of training)." in text
    assert "16 trainings were scored" in text and "| nnunet (peer) | scratch | none | 0 |" in text
    best = "of the rows with 2 seeds is highest with `joint-lits-none` and `segmentation-lits-none`: 0.80"
    assert f"**Lesion Dice** {best}" in text  # the peer has the same, with one seed
    assert "Of 10 differences " in text  # without the peer's
    line = "Peer `nnunet-scratch-none` minus segmentation, joint, regions, ours: lesion Dice +0.000 to +0.300"
    assert f"{line} (significant: 1 of 3)" in text


@pytest.mark.integration
def test_the_page_needs_no_other_file(illustrated):
    _, (_, _, _, page, _, *pictures) = illustrated
    reader = _Reader()
    reader.feed(page.read_text(encoding="utf-8"))
    assert not reader.open
    assert reader.fetched == []
    inlined = [base64.b64decode(source.removeprefix("data:image/png;base64,")) for source in reader.images]
    assert inlined == [picture.read_bytes() for picture in pictures]
    assert reader.anchors and reader.anchors <= reader.ids
    assert "prefers-color-scheme: dark" in page.read_text(encoding="utf-8")


@pytest.mark.integration
def test_what_is_missing_comes_first_and_with_its_reason(tmp_path):
    study = write_study(tmp_path)
    fill_cell(study, "joint-lits-none", 0, 0)
    fill_cell(study, "joint-lits-none", 1, 0)
    failed = cell_folder(study, "ynet-lits-none", 0, 0)
    failed.mkdir(parents=True)
    (failed / "failed.json").write_text(json.dumps({"reason": "no <weights> | here"}))
    markdown, tables, _, page, *_ = write_report(study, tmp_path / "report")
    _, missing, *_ = markdown.read_text(encoding="utf-8").split("\n\n")
    assert missing == (
        "**This study is not complete: 14 of 16 cells are missing**, all of `ynet-lits-none`, "
        "`segmentation-lits-none`, `joint-scratch-none`, and some of `joint-lits-none`."
    )
    text = tables.read_text(encoding="utf-8")
    assert text.partition("## Missing cells\n\n")[2].split("\n\n")[1].splitlines() == [
        "- `joint-lits-none`, fold 0 seed 1; fold 1 seed 1: not run yet",
        "- `ynet-lits-none`, fold 0 seed 0: no <weights> | here",
        "- `ynet-lits-none`, fold 0 seed 1; fold 1 seed 0; fold 1 seed 1: not run yet",
        "- `segmentation-lits-none`, all cells: not run yet",
        "- `joint-scratch-none`, all cells: not run yet",
    ]
    assert "fold 0 seed 0: no &lt;weights&gt; | here" in page.read_text(encoding="utf-8")
    assert "No two rows with results can be compared yet." in text
    assert "No row is complete, so there are no findings yet." in markdown.read_text(encoding="utf-8")


@pytest.mark.integration
def test_the_reason_of_rows_that_could_not_run_is_one_line(tmp_path):
    rows = [{"strategy": "joint", "initialisation": ["lits", "imagenet"], "seeds": [0]}]
    study = write_study(tmp_path, rows=rows)
    for fold in (0, 1):
        fill_cell(study, "joint-lits-none", fold, 0)
        failed = cell_folder(study, "joint-imagenet-none", fold, 0)
        failed.mkdir(parents=True)
        (failed / "failed.json").write_text(json.dumps({"reason": "no weights"}))
    text = write_report(study, tmp_path / "report")[0].read_text(encoding="utf-8")
    assert "2 of 4 cells are missing**, all of `joint-imagenet-none` (no weights).\n" in text
    assert text.count("joint-imagenet-none") == 1
    assert "**Type accuracy**: no complete row but `joint-lits-none` has it, 0.86 (" in text


@pytest.mark.integration
def test_trainings_that_outline_nothing_are_named(study, tmp_path):
    made = write_study(tmp_path / "blind")
    fill_study(made)
    write_report(made, tmp_path / "before")
    assert "outlined no lesion" not in (tmp_path / "before" / "study.md").read_text(encoding="utf-8")
    for fold in (0, 1):
        path = cell_folder(made, "joint-scratch-none", fold, 1) / "evaluation.csv"
        units = pd.read_csv(path)
        units[["lesion_pred", "lesion_hit"]] = 0
        units.to_csv(path, index=False)
        lesions = pd.read_csv(path.with_name("lesions.csv"))
        lesions = lesions[lesions["side"] == "true"].assign(hit=False, matched=False)
        lesions.to_csv(path.with_name("lesions.csv"), index=False)
    write_report(made, tmp_path / "after")
    page = (tmp_path / "after" / "study.md").read_text(encoding="utf-8")
    assert "**Some trainings outlined no lesion on any slice**: 2 of 4 of `joint-scratch-none`." in page
    assert "; trainings that outlined nothing are among them." in page
    text = (tmp_path / "after" / "study_tables.md").read_text(encoding="utf-8")
    difference = r"`joint-lits-none` minus `joint-scratch-none`: lesion Dice .*"
    noted = ", with 2 of 4 trainings of `joint-scratch-none` that outlined nothing: holds"
    assert re.search(difference + noted, text)
    table = pd.read_csv(tmp_path / "after" / "study.csv")
    recall = table[(table["row"] == "joint-scratch-none") & (table["metric"] == "lesion_level_recall")]
    assert recall["value"].tolist() == [0.5]  # all lesions with one seed, none with the other
    assert recall["seeds"].tolist() == ["0:1 1:0"]
    assert "- outlined no lesion on any slice: `joint-scratch-none`, fold 0 seed 1, fold 1 seed 1\n" in text


@pytest.mark.integration
def test_images_that_are_elsewhere_leave_out_one_picture(study, tmp_path):
    paths = write_report(study, tmp_path / "report")
    assert not any(path.name in ("slices.png", "training.png") for path in paths)
    assert "Slices with the first seed: left out" in paths[0].read_text(encoding="utf-8")


@pytest.mark.integration
def test_other_data_are_for_research(tmp_path):
    study = write_study(tmp_path, source="a hospital", scored="validation")
    fill_cell(study, "joint-lits-none", 0, 0)
    text = write_report(study, tmp_path / "report")[0].read_text(encoding="utf-8")
    assert "Research only, not a medical device" in text and "Phantoms" not in text
    assert "these are not test results" in text


@pytest.mark.integration
@pytest.mark.parametrize(
    ("datalist", "sentence"),
    [
        ("LiTS", "\n`lits` weights (LiTS weights in the text): trained on data list LiTS, epoch 7.\n"),
        ("phantom-lits", "list phantom-lits, epoch 7; these are phantoms in the form of LiTS, not LiTS itself.\n"),
    ],
)
def test_page_and_tables_say_what_lits_weights_were_trained_on(tmp_path, datalist, sentence):
    study = write_study(tmp_path, source="a hospital")
    network = SEResUNet("small", out_channels=3)
    record = WeightsRecord(
        network="SEResUNet",
        arguments=network.arguments(),
        input_spec=SlabInput((-200.0, 250.0)),
        labels=label_names(PRETRAIN_LABELS),
        datalist_name=datalist,
        datalist_sha256="ab" * 32,
        epoch=7,
        metrics={},
        versions=package_versions(),
    )
    export_weights(study.lits_weights, network.state_dict(), record)
    fill_cell(study, "joint-lits-none", 0, 0)
    page, tables, *_ = write_report(study, tmp_path / "report")
    assert sentence in page.read_text(encoding="utf-8")
    assert sentence.strip(".\n") in tables.read_text(encoding="utf-8")


@pytest.mark.integration
def test_a_new_report_replaces_the_old_one(study, tmp_path):
    _write_images(study)
    assert any(path.name == "slices.png" for path in write_report(study, tmp_path))
    (study.dataset_dir / "p1.nii.gz").unlink()
    write_report(study, tmp_path)
    assert not (tmp_path / "study" / "slices.png").exists()


def test_the_slices_shown_are_each_types_median_and_the_worst(study):
    rows = choose_rows(read_results(study))
    assert [row.name for row in rows] == ["joint-lits-none", "ynet-lits-none", "segmentation-lits-none"]
    units = rows[0].units
    of_seed_0 = (units["seed"] == 0) & (units["true_type"] == "cyst")
    units.loc[of_seed_0 & (units["patient"] == "p1"), "class_aware_dice"] = [0.6, 0.7]  # p4's is 0
    chosen = choose_slices(rows)
    assert [(example.image, example.slice, example.reason) for example in chosen] == [
        ("p1.nii.gz", 1, "cyst, median"),
        ("p5.nii.gz", 1, "hemangioma, median"),
        ("p6.nii.gz", 1, "metastasis, median"),
        ("p4.nii.gz", 1, "cyst, worst"),
    ]


def test_of_equally_bad_slices_the_largest_lesion_is_shown(study):
    rows = choose_rows(read_results(study))
    units = rows[0].units
    units["class_aware_dice"] = 0.0
    units.loc[units["patient"] == "p3", "lesion_true"] = 60
    assert choose_slices(rows)[-1].image == "p3.nii.gz"
    assert choose_slices(rows[2:]) == []  # segmentation names nothing, so nothing says which are typical


def _headings(text):
    return re.findall(r"^## (.+)$", text, flags=re.MULTILINE)


def _assert_links(path, *others):
    """Every link of a page leads to a file; beside pictures there are those to other files."""
    linked = re.findall(r"\]\(([^)]+)\)", path.read_text(encoding="utf-8"))
    assert all((path.parent / name).is_file() for name in linked)
    assert [name for name in linked if not name.endswith(".png")] == list(others)


def _write_images(study):
    """A CT of 16 × 16 × 3 for each patient, liver all over and a lesion of its type in the middle."""
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    names = {"p1": 2, "p2": 3, "p3": 4, "p4": 2, "p5": 3, "p6": 4}
    for patient in FOLD:
        draw = np.random.default_rng(FOLD[patient])
        hu = draw.integers(-1000, 1000, [16, 16, 3]).astype(np.int16)
        label = np.ones([16, 16, 3], dtype=np.uint8)
        label[5:10, 5:10] = names[patient]
        nib.save(nib.Nifti1Image(hu, affine), study.dataset_dir / f"{patient}.nii.gz")
        nib.save(nib.Nifti1Image(label, affine), study.dataset_dir / f"{patient}-label.nii.gz")


class _Reader(HTMLParser):
    """What a page shows and fetches, and which tags it leaves open."""

    def __init__(self):
        super().__init__()
        self.open, self.images, self.fetched, self.anchors, self.ids = [], [], [], set(), set()

    def handle_starttag(self, tag, attrs):
        facts = dict(attrs)
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.ids |= {facts["id"]} if "id" in facts else set()
        if tag == "img":
            (self.images if facts["src"].startswith("data:") else self.fetched).append(facts["src"])
        elif tag == "a" and facts["href"].startswith("#"):
            self.anchors.add(facts["href"][1:])
        elif "src" in facts or "href" in facts:
            self.fetched.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
