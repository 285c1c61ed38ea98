"""Small benchmarks on disk, in their official layouts, and predictions for them."""

import json

import numpy as np
from PIL import Image as Pil

from rsvp.masks import encode_rle

HEIGHT, WIDTH = 20, 30
SIZE = (HEIGHT, WIDTH)


def rectangle(x0, y0, x1, y1):
    """(H, W) bool: columns x0 to x1 - 1, rows y0 to y1 - 1."""
    mask = np.zeros(SIZE, dtype=np.bool_)
    mask[y0:y1, x0:x1] = True
    return mask


def write_lines(file, lines):
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def line(sample_id, *masks, **more):
    return {"id": sample_id, "masks": [encode_rle(mask) for mask in masks], **more}


def polygon(label, x0, y0, x1, y1):
    """A shape whose drawn pixels are `rectangle` of the same numbers."""
    x1, y1 = x1 - 1, y1 - 1
    return {"label": label, "points": [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]}


def write_reasonseg(folder, samples):
    """Samples: name -> (is_sentence, shapes)."""
    folder.mkdir()
    for name, (is_sentence, shapes) in samples.items():
        Pil.new("RGB", (WIDTH, HEIGHT)).save(folder / f"{name}.jpg")
        entry = {"text": [f"what is {name}?"], "is_sentence": is_sentence, "shapes": shapes}
        (folder / f"{name}.json").write_text(json.dumps(entry))
    return folder


def write_seginw_set(folder, name, annotations, categories=("hand", "metal"), images=(1, 2)):
    """Annotations: (image id, category id, mask)."""
    valid = folder / name / "valid"
    valid.mkdir(parents=True)
    for image in images:
        Pil.new("RGB", (WIDTH, HEIGHT)).save(valid / f"{image}.jpg")
    document = {
        "images": [
            {"id": i, "file_name": f"{i}.jpg", "height": HEIGHT, "width": WIDTH} for i in images
        ],
        "categories": [{"id": i, "name": n} for i, n in enumerate(categories, start=1)],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": category,
                "segmentation": encode_rle(mask),
                "area": int(mask.sum()),
                "iscrowd": 0,
            }
            for number, (image, category, mask) in enumerate(annotations, start=1)
        ],
    }
    (valid / "_annotations_min1cat.coco.json").write_text(json.dumps(document))
    return folder


def write_grefcoco(folder, refs, masks):
    """Refs: (sentence id, list of annotation ids); masks: annotation id -> mask, all of image 1."""
    folder.mkdir()
    entries = [
        {
            "split": "val",
            "image_id": 1,
            "ann_id": annotations,
            "sentences": [{"sent_id": sentence, "sent": f"Phrase {sentence} "}],
        }
        for sentence, annotations in refs
    ]
    (folder / "grefs(unc).json").write_text(json.dumps(entries))
    (folder / "instances.json").write_text(json.dumps(instances(masks)))
    return folder


def instances(masks):
    return {
        "images": [{"id": 1, "file_name": "1.jpg", "height": HEIGHT, "width": WIDTH}],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 1, "segmentation": s} for i, s in masks.items()
        ],
    }
