package leads

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"leadpipe/internal/outcome"
)

// When a call to Graph may be made: not too many side by side, none while a limit lasts, and
// one now and then while all are refused.

const (
	// longestHold is the longest pause that a rate limit may ask for. Graph counts over
	// an hour or a day and says how many minutes are left; one call an hour harms nobody.
	longestHold = time.Hour
	// mostCalls is how many calls run side by side, and mostAgain how many of them for leads
	// that were asked for before: so that some that hang leave room for those that come.
	mostCalls = 256
	mostAgain = 64
	// longestQueue is the longest that a lead waits for its turn, so that thousands which
	// come while Graph does not answer are told of within a minute. One that was asked for
	// before is soon told to come again, rather than keep others from being handled.
	longestQueue = 5 * time.Second
	againQueue   = time.Second
	// firstTrial and lastTrial are the pauses between two tries while Graph refuses us as a
	// whole.
	firstTrial = 2 * time.Second
	lastTrial  = 15 * time.Second
)

// enter waits for a place among the calls that run side by side.
func (g *Graph) enter(ctx context.Context, again bool) (leave func(), err error) {
	places, longest := []chan struct{}{g.places}, longestQueue
	if again {
		places, longest = []chan struct{}{g.again, g.places}, againQueue
	}
	t := time.NewTimer(longest)
	defer t.Stop()
	for i, p := range places {
		leave := func() {
			for _, p := range places[:i] {
				<-p
			}
		}
		select {
		case p <- struct{}{}:
		case <-t.C:
			leave()
			return nil, outcome.Temporary(outcome.Timeout, errors.New("so many calls wait for Graph's answer that this one had no turn"))
		case <-ctx.Done():
			leave()
			return nil, unanswered(ctx.Err())
		}
	}
	return func() {
		for _, p := range places {
			<-p
		}
	}, nil
}

// held says whether a call may be made, and else gives the outcome in place of its own.
// trial: not zero for the one that finds out whether Graph takes our calls again, and then
// what it keeps the others waiting for.
func (g *Graph) held() (trial time.Time, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	switch wait := g.hold.Sub(now); {
	case wait > 0 && g.why != nil:
		return time.Time{}, g.why
	case wait > 0:
		return time.Time{}, outcome.Retry(outcome.RateLimited, wait, errors.New("a rate limit of Graph is not over"))
	case g.why != nil:
		g.hold = now.Add(g.pause)
		return g.hold, nil
	}
	return time.Time{}, nil
}

// heard takes note of how a call ended: it holds back the others where all are refused,
// and no longer once Graph has answered one.
func (g *Graph) heard(trial time.Time, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	o := outcome.Of(err)
	switch {
	case err != nil && o.Kind == outcome.KindBlocked:
		if g.why == nil || !trial.IsZero() {
			g.pause = min(lastTrial, max(firstTrial, 2*g.pause))
			g.why, g.hold = err, g.now().Add(g.pause)
		}
	case trial.IsZero() || err != nil && (o.Reason == outcome.Timeout || o.Reason == outcome.Unavailable):
	default:
		g.why, g.pause = nil, 0
		if g.hold.Equal(trial) { // else a rate limit has set it
			g.hold = time.Time{}
		}
	}
}

// holdFor makes calls wait for d, if they do not wait longer already, and gives d.
func (g *Graph) holdFor(d time.Duration) time.Duration {
	if d <= 0 {
		return d
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if until := g.now().Add(d); until.After(g.hold) {
		g.hold = until
	}
	return d
}

// regainAccess is how long the usage header asks us to stay away: the longest of the
// minutes that it names; 0 without any. X-App-Usage has no such time.
// https://developers.facebook.com/docs/graph-api/overview/rate-limiting
func regainAccess(h http.Header) time.Duration {
	var usage map[string][]struct {
		Regain float64 `json:"estimated_time_to_regain_access"` // minutes
	}
	if err := json.Unmarshal([]byte(h.Get("X-Business-Use-Case-Usage")), &usage); err != nil {
		return 0 // absent, or not as documented
	}
	minutes := 0.0
	for _, of := range usage {
		for _, u := range of {
			minutes = max(minutes, u.Regain)
		}
	}
	return time.Duration(min(minutes, longestHold.Minutes()) * float64(time.Minute))
}
