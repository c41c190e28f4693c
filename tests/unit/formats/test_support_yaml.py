import pytest

from kshot.errors import SupportError
from kshot.formats import support_yaml
from tests.support.files import mask, picture, square, text


def make(root, content):
    picture(root / "a.jpg")
    mask(root / "sub/a.png", square())
    text(root / "support.yaml", content)
    return root


def test_every_kind_of_prompt_is_read_in_order(tmp_path):
    content = """
    - {image: a.jpg, mask: sub/a.png, label: cat}
    - {image: a.jpg, mask: sub/a.png, label: {1: cat, 2: dog}}
    - {image: a.jpg, boxes: [[1, 1, 4, 4], [0, 0, 2, 2]], label: cat}
    - {image: a.jpg, points: [[4, 5]], negative_points: [[0, 0]], label: dog}
    - {image: a.jpg, scribbles: [[[0, 0], [3, 3]]], negative_scribbles: [[[5, 0], [5, 5]]], label: dog}
    - {text: a brown dog, label: dog}
    - {image: a.jpg, mask: null}
    """
    shots = support_yaml.FORMAT.read_shots(make(tmp_path, content))
    assert [shot.prompt for shot in shots] == ["mask", "mask", "boxes", "points", "scribbles", "text", "none"]
    assert shots[0].image == tmp_path / "a.jpg" and shots[0].mask == tmp_path / "sub/a.png"
    assert shots[1].label == {1: "cat", 2: "dog"}
    assert shots[2].boxes.tolist() == [[1, 1, 4, 4], [0, 0, 2, 2]]
    assert shots[3].points.tolist() == [[4, 5]] and shots[3].negative_points.tolist() == [[0, 0]]
    assert shots[4].negative_scribbles[0].tolist() == [[5, 0], [5, 5]]
    assert shots[5].text == "a brown dog" and shots[6].label == "object"


def test_without_the_file_it_is_another_layout(tmp_path):
    assert support_yaml.FORMAT.read_shots(tmp_path) is None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("- {image: a.jpg, lable: cat}", "shot 1: unknown key lable; the keys are image, mask, label, boxes"),
        ("- {image: a.jpg}\n- {image: b.jpg}", r"shot 2: image: no such file .*b\.jpg"),
        ("- {image: a.jpg, mask: gone.png}", r"shot 1: mask: no such file .*gone\.png"),
        ("- {image: 3}", "shot 1: image: expected a path, got 3"),
        ("- {image: a.jpg, boxes: [4, 4, 1, 1]}", "shot 1: expected boxes as x0, y0, x1, y1"),
        ("- {image: a.jpg, boxes: many}", "shot 1: expected boxes"),
        ("- {image: a.jpg, points: [[1, 2, 3]]}", "shot 1: expected points"),
        ("- {image: a.jpg, scribbles: 3}", "shot 1: a value of the wrong kind"),
        ("- {image: a.jpg, mask: sub/a.png, boxes: [1, 1, 2, 2]}", "shot 1: a shot takes one kind of prompt"),
        ("- {image: a.jpg, label: no}", "shot 1: expected label as a name in quotes, got False"),
        ("- {image: a.jpg, label: ''}", "shot 1: expected a class name"),
        ("- {image: a.jpg, mask: sub/a.png, label: {'1': cat}}", "shot 1: expected labels in 1..254"),
        ("- {image: a.jpg, text: a cat}", "shot 1: a text shot has no image"),
        ("- {text: [a, cat]}", "shot 1: expected text as words"),
        ("- {label: cat}", "shot 1: a shot needs an image"),
        ("- a.jpg", "shot 1: expected keys and values, got 'a.jpg'"),
        ("image: a.jpg", "expected a list of shots"),
        ("", "expected a list of shots"),
        ("- [", "not valid YAML"),
        ("- !!python/object/apply:os.system [ls]", "not valid YAML"),
        ("- \x00", "not valid YAML"),
    ],
)
def test_what_is_wrong_is_refused_by_file_and_place(content, says, tmp_path):
    with pytest.raises(SupportError, match=says) as refused:
        support_yaml.FORMAT.read_shots(make(tmp_path, content))
    assert str(tmp_path / "support.yaml") in str(refused.value)
