"""Whether a document is valid OpenAPI 3.1, as openapi-spec-validator sees it: python validate.py FILE

Needs the packages in requirements.txt; exits with 77 where they are not installed.
"""

import json
import sys

try:
    import openapi_spec_validator
except ImportError:
    sys.exit(77)

with open(sys.argv[1], encoding="utf-8") as file:
    document = json.load(file)
validator = openapi_spec_validator.OpenAPIV31SpecValidator(document)
errors = list(validator.iter_errors())
for error in errors:
    print(f"{'/'.join(map(str, error.absolute_path))}: {error.message}")
if errors:
    sys.exit(1)
print(f"openapi-spec-validator {openapi_spec_validator.__version__}, {len(document['paths'])} paths")
