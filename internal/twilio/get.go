package twilio

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
)

// Get reads a resource by its address at Twilio, into a value. The status is that of the
// answer, 0 without one; into is filled for 200 alone, and any other status is no error.
func (c *Client) Get(ctx context.Context, address string, into any) (status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return 0, fmt.Errorf("asking Twilio: %w", err)
	}
	req.SetBasicAuth(c.o.Account, c.o.Token)
	resp, err := c.Call(ctx, nil).RoundTrip(req)
	if err != nil {
		return 0, fmt.Errorf("asking Twilio: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return resp.StatusCode, nil
	}
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		return resp.StatusCode, fmt.Errorf("reading Twilio's answer: %w", err)
	}
	return resp.StatusCode, nil
}
