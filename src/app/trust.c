/*
 * trust.c - see trust.h. A file that cannot be read fails the transfer, which tells it by name.
 */
#include "app/trust.h"

#include <stdlib.h>

void eg_trust(CURL *curl)
{
    const char *file = getenv("SSL_CERT_FILE"), *folder = getenv("SSL_CERT_DIR");
    if (file && *file)
        curl_easy_setopt(curl, CURLOPT_CAINFO, file);
    if (folder && *folder)
        curl_easy_setopt(curl, CURLOPT_CAPATH, folder);
}
