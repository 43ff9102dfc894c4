# Names that the Python product had. Every recipe calls make.

setup:
    make setup

dev-backend:
    make dev-backend

build:
    make build

run:
    make run

test:
    make test

deploy:
    make deploy

kill:
    make kill

reset:
    make reset

generate-key:
    make generate-key

docs:
    make docs
