package sms

import "time"

// Points of the walk at which a test may kill the process.
const (
	Claimed  = "claimed"
	Answered = "answered"
)

// WithGap changes how old a look may be; it is what the barrier's test takes away.
func WithGap(o *Options, d time.Duration) { o.gap = d }

// WithPoint tells f of each point that a text passes.
func WithPoint(o *Options, f func(point string)) { o.point = f }
