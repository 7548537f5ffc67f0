"""Validates documents by the schemas that podlab prints, with python3-jsonschema.

First line of standard input: what `podlab schema -o json` prints. Every further line is a document; the answer is a line,
empty or what is wrong. Printed documents may have no keys but those of their schemas here: a key that nobody has described
is a fault of ours.
"""

import json
import sys

from jsonschema import Draft202012Validator


def closed(schema):
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and "type" in schema:
        schema.setdefault("additionalProperties", False)
    return schema


def main():
    validators = {}
    for name, schema in json.loads(sys.stdin.readline())["schemas"].items():
        Draft202012Validator.check_schema(schema)
        validators["podlab." + name + "/1"] = Draft202012Validator(closed(schema))
    for line in sys.stdin:
        document = json.loads(line)
        validator = validators.get(str(document.get("schema")))
        if validator is None:
            print("no schema", document.get("schema"), flush=True)
            continue
        errors = sorted(validator.iter_errors(document), key=str)
        print("; ".join(f"{e.json_path}: {e.message}".replace("\n", " ")[:500] for e in errors[:3]), flush=True)


main()
