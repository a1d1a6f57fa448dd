"""The text of a chapter that has one of each thing that other pages may point to."""

CHAPTER = """\
# A chapter

Prose with {cite}`islam2021`, see {eq}`a-sum` and {prf:ref}`a-theorem`.

```{math}
:label: a-sum

1 + 1 = 2
```

```{prf:theorem} Two
:label: a-theorem

It is two.
```

````{exercise}
:label: exercise-a

Add one and one.
````

````{solution} exercise-a
:class: dropdown

Two.
````

## A part of it

More prose.
"""
