package rdb

import (
	"fmt"
	"math"
	"strconv"
)

// Kinds of an array's value.
const (
	arrayString = 0
	arrayInt    = 1
	arrayFloat  = 2
	arraySmall  = 3
)

// array emits the values of an array of Redis 8.8, behind the place at which the next one is inserted, if it has one.
func (w *walker) array() error {
	n, err := w.count()
	if err != nil {
		return err
	}
	cursor, err := w.count()
	if err != nil {
		return err
	}
	w.begin(ElementIndexed, n)
	if cursor != 0 {
		w.e.Kind = ElementCursor
		if w.e.Index, err = w.count(); err != nil {
			return err
		}
		if err := w.send(); err != nil {
			return err
		}
		w.begin(ElementIndexed, 0)
	}
	for ; n > 0; n-- {
		if err := w.indexed(); err != nil {
			return err
		}
		if err := w.send(); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) indexed() (err error) {
	if w.e.Index, err = w.count(); err != nil {
		return err
	}
	tag, err := w.count()
	if err != nil {
		return err
	}
	switch tag {
	case arrayString, arraySmall:
		return w.item()
	case arrayInt, arrayFloat:
		bits, err := w.int64()
		if err != nil {
			return err
		}
		if tag == arrayInt {
			w.text = strconv.AppendInt(w.text[:0], bits, 10)
		} else {
			w.text = strconv.AppendFloat(w.text[:0], math.Float64frombits(uint64(bits)), 'g', -1, 64)
		}
		w.e.Value = w.text
		return nil
	}
	return fmt.Errorf("%w: an array's value of kind %d", ErrCorrupt, tag)
}
