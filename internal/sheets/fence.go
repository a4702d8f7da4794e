package sheets

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"

	api "google.golang.org/api/sheets/v4"

	"leadpipe/internal/outcome"
)

// The pinned client makes one process the writer, but it does not stop a former one
// that wakes up with a write in its hands. A fence does, at Google: the writer's name
// stands in the spreadsheet as a named range, every write of cells also names that
// range, and Google refuses a call as a whole when one of its ranges does not exist.
// Who wants to write takes the other's name away, puts its own, and reads everything
// after that. What a call brings that was on its way meanwhile, comes too late.

// fencePrefix begins the names of all fences.
const fencePrefix = "leadpipe_writer_"

// fences picks the named ranges that are fences.
func fences(all []*api.NamedRange) []*api.NamedRange {
	var out []*api.NamedRange
	for _, n := range all {
		if strings.HasPrefix(n.Name, fencePrefix) {
			out = append(out, n)
		}
	}
	return out
}

// takeOver asks Google to put a new fence in place of others. It is refused as a whole
// when one of these is gone already: then somebody else was faster.
func takeOver(from []*api.NamedRange, sheetID int64) (name string, requests []*api.Request) {
	for _, n := range from {
		requests = append(requests, &api.Request{DeleteNamedRange: &api.DeleteNamedRangeRequest{NamedRangeId: n.NamedRangeId}})
	}
	name = fencePrefix + rand.Text()
	return name, append(requests, &api.Request{AddNamedRange: &api.AddNamedRangeRequest{NamedRange: &api.NamedRange{
		NamedRangeId: name, Name: name,
		Range: &api.GridRange{SheetId: sheetID, EndRowIndex: 1, EndColumnIndex: 1, ForceSendFields: []string{"SheetId"}},
	}}})
}

// behind adds the fence to the ranges of a write. null leaves its cell as it is.
func behind(fence string, data []*api.ValueRange) []*api.ValueRange {
	if fence == "" {
		return data
	}
	return append([]*api.ValueRange{{Range: fence, Values: [][]any{{nil}}}}, data...)
}

// unfenced is how often no fence may be found before a spreadsheet is written without
// one: what is there is not Google, or people keep deleting it. The writer is then as
// safe as the pin makes it.
const unfenced = 2

// holds says whether this client, and no other, may write, going by a listing.
func (c *client) holds(l listing) bool {
	switch n := len(l.fences); {
	case n == 1 && l.fences[0].Name == c.fence:
		c.lost = 0
		return l.reachable(l.fences[0])
	case n == 0 && c.lost >= unfenced:
		c.fence = ""
		return true
	}
	return false
}

// reachable says whether a fence's cell may be written, which every write does.
func (l listing) reachable(n *api.NamedRange) bool {
	for _, s := range l.sheets {
		if n.Range != nil && n.Range.SheetId == s.id {
			return !s.isLocked(int(n.Range.StartRowIndex), int(n.Range.StartColumnIndex))
		}
	}
	return true
}

// mayWrite says whether it did at the last listing, and nothing has shown since that
// it no longer does.
func (c *client) mayWrite() bool { return c.fence != "" || c.lost >= unfenced }

// take puts a fence of this client's in place of those of a listing. Whether it alone
// holds it then, the next listing tells.
func (c *client) take(ctx context.Context, l listing) error {
	if !l.open {
		return outcome.Blocked(outcome.Refused, errors.New("every tab of the spreadsheet is protected against the service account"))
	}
	if len(l.fences) == 0 {
		c.lost++ // the one put before, if any, is gone
	}
	c.fence, c.anchor = "", l.anchor
	name, requests := takeOver(l.fences, l.anchor)
	err := c.update(ctx, requests)
	switch {
	case err == nil:
		c.fence = name
	case outcome.Of(err).Kind != outcome.KindPermanent:
		return err
	}
	return nil
}

// fenced looks at how a write ended: a refusal may be the fence's. After a write whose
// end is not known the fence is let go, so that it can't come late.
func (c *client) fenced(ctx context.Context, err error) error {
	if err == nil || c.fence == "" {
		return err
	}
	switch o := outcome.Of(err); {
	case o.Kind == outcome.KindPermanent:
		l, listErr := c.list(ctx)
		if listErr != nil {
			return listErr
		}
		for _, n := range l.fences {
			if n.Name == c.fence {
				return err
			}
		}
		c.fence = ""
		return outcome.Temporary(outcome.Conflict, errors.New("another writer has taken over, or somebody deleted the writer's named range"))
	case o.Kind == outcome.KindTemporary && o.Reason != outcome.RateLimited && o.Reason != outcome.Conflict:
		c.fence = ""
	}
	return err
}
